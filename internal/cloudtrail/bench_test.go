package cloudtrail

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const testARN = "arn:aws:cloudtrail:us-east-1:123456789012:channel/EXAMPLE8-0558-4f7e-a06a-43969EXAMPLE"

// static are credentials without the SDK's module for them.
func static() aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}, nil
	})
}

// typical is an entry as Kong's documentation shows it, with a small payload.
func typical(i int) audit.Entry {
	id := fmt.Sprintf("8XsOaNYwXgn0VmgA8qYYpVte%08d", i)
	return audit.Entry{
		ID: id, RequestID: id, Timestamp: 1663013700, ClientIP: "172.31.76.246", Method: "POST",
		Path: "/services/example/plugins?size=100", Status: 201, TTL: 2591940,
		Workspace: "cca82c73-2365-441b-8860-9e074d93b205", Payload: `{"name":"rate-limiting","config":{"minute":5,"policy":"local"}}`,
		RBACUserID: "2e959b45-0053-41cc-9c2c-5458d0964331", RBACUserName: "admin", RequestSource: "kong-manager",
		KongVersion: "3.10.0.2",
	}
}

// accepting answers each call as AWS would that accepts every event.
type accepting struct{ answer []byte }

func (a *accepting) Do(r *http.Request) (*http.Response, error) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: int64(len(a.answer)),
		Body: io.NopCloser(bytes.NewReader(a.answer)), Request: r,
	}, nil
}

func BenchmarkMap(b *testing.B) {
	s, err := New(Options{ChannelARN: testARN, Config: aws.Config{Credentials: static()}, Hostname: "https://kong.example.com:8444"})
	if err != nil {
		b.Fatal(err)
	}
	e := typical(1)
	var w writer
	b.ReportAllocs()
	for b.Loop() {
		w.reset()
		s.mapping.write(&w, &e)
	}
	b.ReportMetric(float64(len(w.buf)), "bytes/event")
}

func BenchmarkPut(b *testing.B) {
	entries := make([]audit.Entry, maxEvents)
	var answer bytes.Buffer
	answer.WriteString(`{"successful":[`)
	for i := range entries {
		entries[i] = typical(i)
		if i > 0 {
			answer.WriteByte(',')
		}
		fmt.Fprintf(&answer, `{"id":%q,"eventID":"cca82c73-2365-441b-8860-%012d"}`, entries[i].ID, i)
	}
	answer.WriteString(`],"failed":[]}`)
	s, err := New(Options{
		ChannelARN: testARN, Hostname: "https://kong.example.com:8444",
		Config: aws.Config{Credentials: static(), HTTPClient: &accepting{answer.Bytes()}},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		verdicts, err := s.Put(b.Context(), entries)
		if err != nil || verdicts[99].Status != audit.Accepted {
			b.Fatal(err, verdicts[99])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*maxEvents), "ns/entry")
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N*maxEvents), "cpu-ns/entry")
}

// cpu is the time that the process has had of the processors, which other
// processes of the machine hardly change.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
