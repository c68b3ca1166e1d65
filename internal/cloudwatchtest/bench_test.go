package cloudwatchtest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// BenchmarkPut is a call of 1,000 events as the relay writes them.
func BenchmarkPut(b *testing.B) {
	var events []sent
	for i := range 1000 {
		events = append(events, sent{fmt.Sprintf(`{"version":"3.9.1.1","userIdentity":{"type":"KongRBACUser","principalId":"2e959b45-0053-41cc-9c2c-5458d0964331","details":{"rbac_user_name":"admin"}},`+
			`"eventSource":"kong-gateway","eventName":"POST/services","eventTime":"2026-03-01T11:00:00Z","UID":"id-%032d","requestParameters":{"queryParameters":"size=100","payload":{"name":"svc","host":"h.internal","port":80}},`+
			`"sourceIPAddress":"172.31.76.246","recipientAccountId":"111122223333","additionalEventData":{"workspace":"0da4afe7-44ad-4e81-a953-5d2923ce68ae","hostname":"http://kong:8001","method":"POST","ttl":2591940,"status":201}}`, i), at(0)})
	}
	body, err := json.Marshal(map[string]any{"logGroupName": Group, "logStreamName": "kong", "logEvents": events})
	if err != nil {
		b.Fatal(err)
	}
	for name, o := range map[string]Options{"strict": {Digest: true}, "lean": {Lean: true}} {
		b.Run(name, func(b *testing.B) {
			s := fixed(o)
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/", strings.NewReader(string(body)))
				r.Header.Set("X-Amz-Target", targetPrefix+"PutLogEvents")
				r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+AccessKeyID+"/20260301/"+Region+"/logs/aws4_request, SignedHeaders=host, Signature=0")
				w := httptest.NewRecorder()
				s.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Fatal(w.Body)
				}
			}
			if s.Counts().Distinct != len(events) {
				b.Fatal(s.Counts())
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(len(events)), "µs/event")
		})
	}
}
