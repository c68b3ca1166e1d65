package cloudwatch_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudwatch"
	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
)

// What answers 200 to everything is not CloudWatch Logs: nothing was accepted by it, and
// a stream of which it shows nothing is not empty.
func TestSuccessThatIsNotOfAWS(t *testing.T) {
	for name, c := range map[string]struct {
		status       int
		kind, answer string
	}{
		"JSON":       {http.StatusOK, "application/json", `{"ok":true}`},
		"nothing":    {http.StatusOK, "", ""},
		"null":       {http.StatusOK, "application/json", "null"},
		"accepted":   {http.StatusAccepted, "text/plain", "{}"},
		"no content": {http.StatusNoContent, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = []string{c.kind}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.answer)
			}))
			t.Cleanup(server.Close)
			cfg := aws.Config{Region: cloudwatchtest.Region, BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "example", "")}
			_, d := start(t, func(o *cloudwatch.Options) { o.Config = cfg })
			verdicts, err := d.Put(t.Context(), []audit.Entry{{ID: "a", Timestamp: noon.Unix()}})
			if err == nil || audit.Hint(err) == "" || verdicts[0].Status != audit.Retryable || verdicts[0].Code != "BadAnswer" {
				t.Errorf("%v: %+v", err, verdicts)
			}
			r := cloudwatch.NewReader(cfg, "audit", "kong")
			err = nil
			for _, err = range r.Events(t.Context(), noon.Unix(), noon.Unix()+60) {
			}
			if err == nil || audit.Hint(err) == "" {
				t.Errorf("the stream counts as empty: %v", err)
			}
		})
	}
}

// A stream that something else than AWS says it has created is not there. What is between is named, not AWS.
func TestStreamThatAWSDidNotMake(t *testing.T) {
	l := &logs{Server: cloudwatchtest.New(cloudwatchtest.Options{Group: "audit"}), count: map[string]int{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".CreateLogStream") {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>")
			return
		}
		l.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	_, d := start(t, func(o *cloudwatch.Options) { o.Config.BaseEndpoint = &server.URL })
	verdicts, err := d.Put(t.Context(), []audit.Entry{{ID: "a", Timestamp: noon.Unix()}})
	if err == nil || !strings.Contains(audit.Hint(err), "something between") || verdicts[0].Status != audit.Retryable {
		t.Errorf("%v: %+v; hint: %s", err, verdicts, audit.Hint(err))
	}
}

// An emulator creates the stream, and its answer need not bear a sign of AWS.
func TestStreamThatAnEmulatorMade(t *testing.T) {
	l := &logs{Server: cloudwatchtest.New(cloudwatchtest.Options{Group: "audit"}), count: map[string]int{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		l.ServeHTTP(answer, r)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}))
	t.Cleanup(server.Close)
	_, d := start(t, func(o *cloudwatch.Options) { o.Config.BaseEndpoint, o.Now = &server.URL, nil })
	verdicts, err := d.Put(t.Context(), []audit.Entry{{ID: "a", Timestamp: time.Now().Unix()}})
	if err != nil || verdicts[0].Status != audit.Accepted {
		t.Errorf("%v: %+v", err, verdicts)
	}
	if err := d.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// No member of the answer is required.
func TestSuccessThatSaysLittle(t *testing.T) {
	for name, c := range map[string]struct{ id, answer string }{
		"an empty object":         {answer: `{}`},
		"a member that is new":    {id: "a-b-c", answer: `{"somethingNew":1}`},
		"nothing, but a request":  {id: "a-b-c"},
		"null":                    {answer: `{"rejectedLogEventsInfo":null,"rejectedEntityInfo":null}`},
		"one that is known":       {answer: `{"nextSequenceToken":"1","somethingNew":1}`},
		"something of the entity": {answer: `{"rejectedEntityInfo":{"errorType":"UnsupportedLogGroupType"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = nil
				if c.id != "" {
					w.Header().Set("X-Amzn-Requestid", c.id)
				}
				_, _ = io.WriteString(w, c.answer)
			}))
			t.Cleanup(server.Close)
			_, d := start(t, func(o *cloudwatch.Options) { o.Config.BaseEndpoint = &server.URL })
			verdicts, err := d.Put(t.Context(), []audit.Entry{{ID: "a", Timestamp: noon.Unix()}})
			if err != nil || verdicts[0].Status != audit.Accepted {
				t.Errorf("%v: %+v", err, verdicts)
			}
		})
	}
}

func TestPutWithoutAnAnswer(t *testing.T) {
	_, s := start(t, func(o *cloudwatch.Options) { o.Config.BaseEndpoint = aws.String("http://127.0.0.1:1") })
	verdicts, err := s.Put(t.Context(), entries(1, 0, ""))
	var settings *audit.SettingsError
	if err == nil || errors.As(err, &settings) {
		t.Errorf("error %v", err)
	}
	if verdicts[0].Status != audit.Retryable {
		t.Errorf("verdict %+v", verdicts[0])
	}
}
