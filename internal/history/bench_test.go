package history_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/history"
	"github.com/kong-cloudtrail/relay/internal/kongadmin"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

// BenchmarkRead reads the history of one of a thousand routes from a Kong that retains
// 100,000 requests, of which 30,000 changed an entity.
func BenchmarkRead(b *testing.B) {
	kong := kongtest.New(kongtest.Options{SkipReads: true})
	address, err := kong.Start()
	if err != nil {
		b.Fatal(err)
	}
	defer kong.Close()
	to := time.Now().Add(-time.Minute)
	i := 0
	for row := range auditlog.Generate(100_000, 1, auditlog.Mix{To: to, Plain: true}) {
		if i++; i%10 < 3 {
			n := i % 1000
			row.Method, row.Path, row.Status = "PATCH", fmt.Sprintf("/routes/route-%d", n), 200
			kong.AddObjects(auditlog.Object{
				ID: entities.UUID(), RequestID: row.RequestID, EntityKey: fmt.Sprintf("key-%d", n), DAOName: "routes", Operation: "update", RequestTimestamp: row.RequestTimestamp,
				Entity: fmt.Sprintf(`{"id":"key-%d","name":"route-%d","created_at":1,"updated_at":%d,"paths":["\/a\/%d"],"protocols":["http","https"],"methods":null,"hosts":["api.example"],"headers":null,"https_redirect_status_code":426,"path_handling":"v0","preserve_host":false,"regex_priority":0,"request_buffering":true,"response_buffering":true,"service":{"id":"0c61e164-6171-4837-8836-8f5298726d53"},"snis":null,"sources":null,"destinations":null,"strip_path":true,"tags":["team"]}`,
					n, n, row.RequestTimestamp, i),
			})
		}
		kong.Add(row)
	}
	client, err := kongadmin.New(kongadmin.Options{URL: address})
	if err != nil {
		b.Fatal(err)
	}
	begin := cpu(b)
	for b.Loop() {
		report, err := history.Read(b.Context(), history.Options{Requests: client, Objects: client.Objects(), Entity: "routes", Name: "route-42"})
		if err != nil || len(report.Events) != 100 || report.Events[0].UserName == "" {
			b.Fatal(err, len(report.Events))
		}
	}
	b.ReportMetric((cpu(b)-begin).Seconds()/float64(b.N), "cpu-s/op") // with the emulated Kong's
}

// cpu returns what the process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
