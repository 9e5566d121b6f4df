package ha

import (
	"strings"
	"testing"
	"time"
)

func TestAPICertificateStatus(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	if s := newAPICertificateStatus(nil, now); s != nil {
		t.Errorf("nobody told of a certificate: %+v", s)
	}
	for left, warning := range map[time.Duration]string{
		90 * 24 * time.Hour:              "",
		CertificateWarning:               "",
		CertificateWarning - time.Second: "ends on 2026-03-31",
		time.Second:                      "ends on 2026-03-01",
		0:                                "ended on 2026-03-01",
		-time.Minute:                     "ended on 2026-03-01",
	} {
		s := newAPICertificateStatus(func() (time.Time, string) { return now.Add(left), "a fault" }, now)
		if s.ExpiresS != int64(left/time.Second) || !s.NotAfter.Equal(now.Add(left)) || s.Fault != "a fault" || (warning == "") != (s.Warning == "") || !strings.Contains(s.Warning, warning) {
			t.Errorf("%s left: %+v", left, s)
		}
	}
}
