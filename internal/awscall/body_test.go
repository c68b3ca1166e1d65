package awscall_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudtraildata"
	"github.com/aws/aws-sdk-go-v2/service/cloudtraildata/types"

	"github.com/kong-cloudtrail/relay/internal/awscall"
)

// slowSender is an HTTP client that has an answer to its first request before it has sent
// the request's body, and sends on after Do has returned, as a RoundTripper may.
type slowSender struct {
	early int           // bytes that are sent before the answer
	goOn  chan struct{} // closed when the rest may be sent
	sent  []chan []byte // what was sent of the body of each request
	calls int
}

func (s *slowSender) Do(req *http.Request) (*http.Response, error) {
	sent := s.sent[s.calls]
	s.calls++
	send := func(first []byte) {
		rest, _ := io.ReadAll(req.Body)
		sent <- append(first, rest...)
	}
	if s.calls == 1 {
		first := make([]byte, s.early)
		if _, err := io.ReadFull(req.Body, first); err != nil {
			return nil, err
		}
		go func() {
			<-s.goOn
			send(first)
		}()
	} else {
		send(nil)
	}
	return &http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   io.NopCloser(strings.NewReader("{}")), Request: req,
	}, nil
}

// TestBodyEndsWithItsCall makes a call that is answered before its body was sent, and at
// once another one whose body is in the same memory: nothing of the second body may follow
// in the first request. That is what lets destinations use the memory of bodies again.
func TestBodyEndsWithItsCall(t *testing.T) {
	const size, early = 1 << 20, 64 << 10
	sender := &slowSender{early: early, goOn: make(chan struct{}), sent: []chan []byte{make(chan []byte, 1), make(chan []byte, 1)}}
	caller, cfg := awscall.New(aws.Config{Region: "us-east-1", HTTPClient: sender, Credentials: static("")}, service)
	client := cloudtraildata.NewFromConfig(cfg)
	body := make([]byte, size)
	put := func() {
		t.Helper()
		failure := caller.Do(t.Context(), func(ctx context.Context) error {
			_, err := client.PutAuditEvents(ctx, &cloudtraildata.PutAuditEventsInput{
				AuditEvents: []types.AuditEvent{}, ChannelArn: aws.String("arn:aws:cloudtrail:us-east-1:123456789012:channel/x"),
			}, func(o *cloudtraildata.Options) { o.APIOptions = append(o.APIOptions, awscall.WithBody(body)) })
			return err
		})
		if failure != nil {
			t.Fatal(failure.Err())
		}
	}
	fill := func(with byte) {
		for i := range body {
			body[i] = with
		}
	}
	fill('a')
	put()
	fill('b')
	close(sender.goOn)
	put()
	if first := <-sender.sent[0]; !bytes.Equal(first, bytes.Repeat([]byte("a"), early)) {
		t.Errorf("the first request has %d bytes, %d of them of the second body; want %d of the first",
			len(first), bytes.Count(first, []byte("b")), early)
	}
	if second := <-sender.sent[1]; !bytes.Equal(second, bytes.Repeat([]byte("b"), size)) {
		t.Errorf("the second request has %d bytes, or others than its body's %d", len(second), size)
	}
}
