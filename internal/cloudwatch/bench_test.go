package cloudwatch_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudwatch"
)

// BenchmarkPut shows what an entry costs on its way to AWS, without its encoding.
func BenchmarkPut(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_, _ = io.WriteString(w, "{}")
	}))
	b.Cleanup(server.Close)
	event := []byte(`{"version":"3.9.1.1-enterprise-edition","userIdentity":{"type":"Anonymous","principalId":"anonymous","details":{"RBAC":"Anonymous User on Kong Gateway: Please Enable RBAC on Kong Gateway"}},` +
		`"eventSource":"kong-gateway","eventName":"POST/services","eventTime":"2026-11-26T01:05:23Z","UID":"CjY5zMr3pPwfQbBciWbC6q0W4fOkr7Vp","requestParameters":{"payload":{"name":"orders","url":"http://orders.internal:8080"}},` +
		`"sourceIPAddress":"127.0.0.1","recipientAccountId":"111122223333","additionalEventData":{"workspace":"0da4afe7-44ad-4e81-a953-5d2923ce68ae","hostname":"http://127.0.0.1:37075","method":"POST","ttl":2591995,"status":201}}`)
	d := cloudwatch.New(cloudwatch.Options{
		Config: aws.Config{Region: "eu-central-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "example", "")},
		Group:  "audit", Stream: "kong", Encode: func(dst []byte, _ *audit.Entry) []byte { return append(dst, event...) },
	})
	list := make([]audit.Entry, 1000)
	for i := range list {
		list[i] = audit.Entry{ID: fmt.Sprint(i), Timestamp: time.Now().Unix()}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Put(b.Context(), list); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(list)), "µs/entry")
}
