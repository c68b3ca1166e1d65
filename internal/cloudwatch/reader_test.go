package cloudwatch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudwatch"
)

// answers serves one operation from a list of answers, and notes the requests.
func answers(t *testing.T, operation string, list ...string) (aws.Config, *[]map[string]any) {
	t.Helper()
	var seen []map[string]any
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in map[string]any
		if err := json.UnmarshalRead(r.Body, &in); err != nil || !strings.HasSuffix(r.Header.Get("X-Amz-Target"), "."+operation) {
			t.Errorf("%s: %v", r.Header.Get("X-Amz-Target"), err)
		}
		seen = append(seen, in)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		answer := list[min(len(seen), len(list))-1]
		if strings.Contains(answer, "__type") {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(srv.Close)
	return aws.Config{Region: "eu-central-1", BaseEndpoint: &srv.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "example", "")}, &seen
}

func logLine(filed int64, message string) string {
	return fmt.Sprintf(`{"message":%q,"timestamp":%d,"ingestionTime":%d,"logStreamName":"kong","eventId":"1"}`, message, filed, filed+5)
}

func TestReader(t *testing.T) {
	at := noon.UnixMilli()
	cfg, seen := answers(t, "FilterLogEvents",
		`{"events":[`+logLine(at, `{"UID":"a","eventTime":"2026-03-01T12:00:00Z","UID2":1}`)+`],"nextToken":"1"}`,
		`{"events":[],"nextToken":"2"}`,
		`{"events":[`+logLine(at+7, `{"UID":"old","eventTime":"2026-01-01T12:00:00Z"}`)+`,`+logLine(at, `a line of somebody else`)+`,`+logLine(at, `{"x":1}`)+`,`+
			logLine(at, `{"metadata":{"uid":"o"},"time":1772366400000}`)+`,`+logLine(at, `{"UID":"a","eventTime":"2026-03-01T12:00:00Z"}`)+`]}`)
	r := cloudwatch.NewReader(cfg, "audit", "kong")
	var got []string
	for e, err := range r.Events(t.Context(), noon.Unix(), noon.Unix()+60) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s %d", e.UID, time.Unix(e.Time, 0).UTC().Format(time.DateTime), e.Times))
	}
	want := "[a 2026-03-01 12:00:00 1 old 2026-01-01 12:00:00 1  1970-01-01 00:00:00 0  1970-01-01 00:00:00 0 o 2026-03-01 12:00:00 1 a 2026-03-01 12:00:00 1]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v\nwant %s", got, want)
	}
	first := (*seen)[0]
	if len(*seen) != 3 || first["startTime"] != float64(at) || first["endTime"] != float64(at+59_999) || (*seen)[2]["nextToken"] != "2" {
		t.Errorf("requests %v", *seen)
	}
}

func TestReaderErrors(t *testing.T) {
	for name, c := range map[string]struct {
		answers  []string
		settings bool
		hint     string
	}{
		"no permission":          {[]string{apiError("AccessDeniedException", "no")}, true, "logs:FilterLogEvents"},
		"no group":               {[]string{apiError("ResourceNotFoundException", "no")}, true, "--log-group"},
		"not of class Standard":  {[]string{apiError("InvalidOperationException", "no")}, true, "class Standard"},
		"the same page for good": {[]string{`{"events":[],"nextToken":"1"}`}, false, ""},
		"two pages in turn":      {[]string{`{"events":[],"nextToken":"1"}`, `{"events":[],"nextToken":"2"}`, `{"events":[],"nextToken":"1"}`, `{"events":[]}`}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := answers(t, "FilterLogEvents", c.answers...)
			r := cloudwatch.NewReader(cfg, "audit", "kong")
			var failure error
			for _, err := range r.Events(t.Context(), 0, 1) {
				failure = errors.Join(failure, err)
			}
			if failure == nil || audit.NeedsPerson(failure) != c.settings || !strings.Contains(audit.Hint(failure), c.hint) {
				t.Errorf("%v (%s)", failure, audit.Hint(failure))
			}
		})
	}
}

// AWS answers alike if the group or the stream is missing. A stream that was deleted holds nothing.
func TestReaderOfDeletedStream(t *testing.T) {
	cfg, seen := answers(t, "FilterLogEvents", apiError("ResourceNotFoundException", "no"), `{"events":[],"nextToken":"1"}`)
	for e, err := range cloudwatch.NewReader(cfg, "audit", "kong").Events(t.Context(), 0, 1) {
		t.Errorf("%+v: %v", e, err)
	}
	if len(*seen) != 2 || (*seen)[1]["logStreamNames"] != nil || (*seen)[1]["logGroupName"] != "audit" {
		t.Errorf("requests %v", *seen)
	}
}

// A page whose end does not arrive is read again.
func TestReaderOfCutPage(t *testing.T) {
	const whole = `{"events":[{"message":"{\"UID\":\"a\",\"eventTime\":\"2026-03-01T12:00:00Z\"}"}]}`
	requests := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests++
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
		_, _ = io.WriteString(w, whole[:len(whole)-3*max(2-requests, 0)])
	}))
	defer srv.Close()
	cfg := aws.Config{Region: "eu-central-1", BaseEndpoint: &srv.URL, Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "example", "")}
	n := 0
	for e, err := range cloudwatch.NewReader(cfg, "audit", "kong").Events(t.Context(), 0, 1) {
		if n++; err != nil || e.UID != "a" {
			t.Errorf("%+v: %v", e, err)
		}
	}
	if n != 1 || requests != 2 {
		t.Errorf("%d events, %d requests", n, requests)
	}
}

// That no time is left for the next turn is not for a person to mend.
func TestReaderOutOfTime(t *testing.T) {
	cfg, _ := answers(t, "FilterLogEvents", `{"events":[],"nextToken":"1"}`, `{"events":[]}`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var failure error
	for _, err := range cloudwatch.NewReader(cfg, "audit", "kong").Events(ctx, 0, 1) {
		failure = err
	}
	if failure == nil || audit.NeedsPerson(failure) {
		t.Errorf("%v (%s)", failure, audit.Hint(failure))
	}
}

func TestInspect(t *testing.T) {
	for name, c := range map[string]struct {
		group string // the answer's
		want  []string
	}{
		"as it should be":     {`{"logGroupName":"audit","retentionInDays":400,"deletionProtectionEnabled":true,"logGroupClass":"STANDARD"}`, nil},
		"never expires":       {`{"logGroupName":"audit","deletionProtectionEnabled":true}`, nil},
		"short, unprotected":  {`{"logGroupName":"audit","retentionInDays":30}`, []string{"after 30 days", "deletion protection"}},
		"by a policy":         {`{"logGroupName":"audit","retentionInDays":90,"retentionPolicyName":"all","deletionProtectionEnabled":true}`, []string{"policy all"}},
		"cannot be read back": {`{"logGroupName":"audit","deletionProtectionEnabled":true,"logGroupClass":"INFREQUENT_ACCESS"}`, []string{"relay verify"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := answers(t, "DescribeLogGroups", `{"logGroups":[{"logGroupName":"audit-other","retentionInDays":1}],"nextToken":"1"}`, `{"logGroups":[`+c.group+`]}`)
			d := cloudwatch.New(cloudwatch.Options{Config: cfg, Group: "audit", Stream: "kong", Encode: func(dst []byte, _ *audit.Entry) []byte { return dst }})
			g, err := d.Inspect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := g.Warnings()
			if len(got) != len(c.want) {
				t.Fatalf("%q", got)
			}
			for i, w := range c.want {
				if !strings.Contains(got[i], w) {
					t.Errorf("%q, want %q", got[i], w)
				}
			}
		})
	}
}
