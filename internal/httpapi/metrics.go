package httpapi

import (
	"bytes"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Metric is one sample. Samples of one name are told apart by their labels.
type Metric struct {
	Name   string // letters, digits and underscores, such as aiondb_ha_epoch
	Help   string // one line; that of the first sample of a name counts
	Type   string // counter or gauge
	Value  float64
	Labels map[string]string
}

// metrics writes the samples in the text format of Prometheus, names and labels
// sorted.
func (a *api) metrics(w http.ResponseWriter, _ *http.Request) error {
	samples := slices.Clone(a.backend.Metrics())
	slices.SortStableFunc(samples, func(x, y Metric) int { return strings.Compare(x.Name, y.Name) })
	var buf bytes.Buffer
	last := ""
	for _, m := range samples {
		if !validMetricName(m.Name) {
			a.log.Error("a metric has a name that cannot be shown", "name", m.Name)
			continue
		}
		if m.Name != last {
			if m.Help != "" {
				buf.WriteString("# HELP " + m.Name + " " + helpEscaper.Replace(m.Help) + "\n")
			}
			buf.WriteString("# TYPE " + m.Name + " " + metricType(m.Type) + "\n")
			last = m.Name
		}
		buf.WriteString(m.Name)
		writeLabels(&buf, m.Labels)
		buf.WriteString(" " + strconv.FormatFloat(m.Value, 'g', -1, 64) + "\n")
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(buf.Bytes())
	return nil
}

func writeLabels(buf *bytes.Buffer, labels map[string]string) {
	sep := byte('{')
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if !validMetricName(name) {
			continue
		}
		buf.WriteByte(sep)
		buf.WriteString(name + `="` + labelEscaper.Replace(labels[name]) + `"`)
		sep = ','
	}
	if sep == ',' {
		buf.WriteByte('}')
	}
}

func metricType(t string) string {
	if t == "counter" || t == "gauge" {
		return t
	}
	return "untyped"
}

func validMetricName(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

var (
	helpEscaper  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)
