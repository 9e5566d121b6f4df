package jsonlstore

import (
	"time"

	"github.com/hashicorp/go-metrics"
)

// metricKeys names what the store measures, with the words other log stores of
// hashicorp/raft use, so that dashboards find them: raft.jsonl.getLog and so
// on. They go to the process's global go-metrics sink, as Raft's own do.
type metricKeys struct {
	getLog       []string // timer, milliseconds per GetLog
	storeLogs    []string // timer, milliseconds per StoreLogs
	deleteRange  []string // timer, milliseconds per DeleteRange
	logsPerBatch []string // sample, entries per StoreLogs
	logBatchSize []string // sample, bytes per StoreLogs
	logSize      []string // sample, bytes per entry
}

func newMetricKeys() metricKeys {
	key := func(name string) []string { return []string{"raft", "jsonl", name} }
	return metricKeys{
		getLog:       key("getLog"),
		storeLogs:    key("storeLogs"),
		deleteRange:  key("deleteRange"),
		logsPerBatch: key("logsPerBatch"),
		logBatchSize: key("logBatchSize"),
		logSize:      key("logSize"),
	}
}

func measure(key []string, start time.Time) { metrics.MeasureSince(key, start) }

func sample(key []string, n int) { metrics.AddSample(key, float32(n)) }
