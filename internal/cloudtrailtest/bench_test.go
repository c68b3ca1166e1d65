package cloudtrailtest

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkPut is a call of 100 events. cpu-µs is what all of it costs, however
// busy the machine is.
func BenchmarkPut(b *testing.B) {
	var events []wireEvent
	for i := range MaxEvents {
		d := goodData(fmt.Sprint("id-", i))
		events = append(events, wireEvent{ID: fmt.Sprint("id-", i), Data: d, Checksum: checksum(d)})
	}
	body := bodyOf(events...)
	at := time.Now()
	header := signed(b, body, at, nil)
	for _, c := range []struct {
		name string
		Options
	}{
		{"strict", Options{Digest: true}},
		{"unsigned", Options{Unsigned: true, Digest: true}},
		{"lean", Options{Unsigned: true, Lean: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.CallsPerSecond = -1
			c.Now = func() time.Time { return at }
			s := New(c.Options)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				r := *header
				r.Body = readCloser{bytes.NewReader(body)}
				w := httptest.NewRecorder()
				s.ServeHTTP(w, &r)
				if w.Code != 200 || !strings.HasSuffix(w.Body.String(), `"failed":[]}`) {
					b.Fatalf("answer %d", w.Code)
				}
			}
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// cpu is the time that this process has had, user and system.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
