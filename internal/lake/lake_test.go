package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
)

func open(tb testing.TB, url, store, secret string) *Lake {
	tb.Helper()
	l, err := New(aws.Config{
		Region: "eu-central-1", BaseEndpoint: &url,
		Credentials: credentials.NewStaticCredentialsProvider(cloudtrailtest.AccessKeyID, secret, ""),
	}, store)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// holding is an emulated service with events, n for each second from at on.
func holding(tb testing.TB, seconds, each int, at time.Time) (*cloudtrailtest.Server, string) {
	tb.Helper()
	s := cloudtrailtest.New(cloudtrailtest.Options{Digest: true, CallsPerSecond: -1, Unsigned: true})
	running := httptest.NewServer(s)
	tb.Cleanup(running.Close)
	type event struct {
		ID        string `json:"id"`
		EventData string `json:"eventData"`
	}
	var batch []event
	flush := func() {
		body, err := json.Marshal(map[string]any{"auditEvents": batch})
		if err != nil {
			tb.Fatal(err)
		}
		resp, err := http.Post(running.URL+"/PutAuditEvents?channelArn="+cloudtrailtest.ChannelARN, "application/json", strings.NewReader(string(body)))
		if err != nil {
			tb.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || strings.Contains(string(answer), "errorCode") {
			tb.Fatalf("%d %s: %v", resp.StatusCode, answer, err)
		}
		batch = nil
	}
	for i := range seconds * each {
		id := fmt.Sprintf("id%030d", i)
		batch = append(batch, event{id, fmt.Sprintf(`{"version":"3","userIdentity":{"type":"Anonymous","principalId":"anonymous"},"eventSource":"kong-gateway",`+
			`"eventName":"GET/","eventTime":%q,"UID":%q,"recipientAccountId":"111122223333"}`, at.Add(time.Duration(i/each)*time.Second).UTC().Format(time.RFC3339), id)})
		if len(batch) == 100 {
			flush()
		}
	}
	if len(batch) > 0 {
		flush()
	}
	return s, running.URL
}

func all(t *testing.T, l *Lake, since, until int64) (events []audit.StoredEvent) {
	t.Helper()
	for e, err := range l.Events(t.Context(), since, until) {
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	slices.SortFunc(events, func(a, b audit.StoredEvent) int { return strings.Compare(a.UID, b.UID) })
	return events
}

func TestEvents(t *testing.T) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	s, url := holding(t, 500, 5, at)
	l := open(t, url, cloudtrailtest.EventDataStore, cloudtrailtest.SecretAccessKey)
	got := all(t, l, at.Unix()+100, at.Unix()+400)
	if len(got) != 1500 {
		t.Fatalf("%d events", len(got))
	}
	for i, e := range got {
		if want := (audit.StoredEvent{UID: fmt.Sprintf("id%030d", 500+i), Time: at.Unix() + int64(100+i/5), Times: 1}); e != want {
			t.Fatalf("got %+v, want %+v", e, want)
		}
	}
	s.Remove(got[7].UID)
	if n := len(all(t, l, audit.MinEventTime-1, audit.MaxEventTime+1)); n != 2499 {
		t.Errorf("%d events", n)
	}
	if n := len(all(t, l, at.Unix()-10, at.Unix())); n != 0 {
		t.Errorf("%d events before the first", n)
	}
	n := 0
	for _, err := range l.Events(t.Context(), audit.MinEventTime, audit.MaxEventTime) {
		if n++; err != nil || n == 1200 {
			break
		}
	}
	if n != 1200 {
		t.Errorf("%d events until it was told to stop", n)
	}
}

func failure(ctx context.Context, l *Lake) error {
	for _, err := range l.Events(ctx, 0, 1) {
		return err
	}
	return nil
}

func TestRefusals(t *testing.T) {
	s := cloudtrailtest.New(cloudtrailtest.Options{})
	running := httptest.NewServer(s)
	t.Cleanup(running.Close)
	for _, tc := range []struct{ name, store, secret, hint string }{
		{"another store", "11111111-2222-3333-4444-555555555555", cloudtrailtest.SecretAccessKey, "--event-data-store"},
		{"wrong key", cloudtrailtest.EventDataStore, "wrong", "AWS_SECRET_ACCESS_KEY"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := failure(t.Context(), open(t, running.URL, tc.store, tc.secret))
			var settings *audit.SettingsError
			if !errors.As(err, &settings) || !strings.Contains(audit.Hint(settings), tc.hint) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestEchoesStayOut has answers that repeat what was asked, with the session token.
func TestEchoesStayOut(t *testing.T) {
	const start = `{"QueryId":"11111111-2222-3333-4444-555555555555"}`
	for name, answers := range map[string][]string{
		"canonical request": {`{"__type":"SignatureDoesNotMatch","message":"It does not match.\n\nThe Canonical String was\n'POST\nx-amz-security-token:hunter2'"}`},
		"statement":         {`{"__type":"InvalidQueryStatementException","message":"cannot parse 'SELECT hunter2'"}`},
		"ended":             {start, `{"QueryStatus":"FAILED","ErrorMessage":"line 1: \"hunter2\""}`},
		"not JSON":          {`<html>__type hunter2</html>`},
	} {
		err := failure(t.Context(), scripted(t, answers...))
		if err == nil || strings.Contains(err.Error()+audit.Hint(err), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// scripted answers with one body after the other, whatever is asked.
func scripted(t *testing.T, answers ...string) *Lake {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if len(answers) == 0 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		answer := answers[0]
		answers = answers[1:]
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if strings.Contains(answer, "__type") {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(srv.Close)
	return open(t, srv.URL, cloudtrailtest.EventDataStore, cloudtrailtest.SecretAccessKey)
}

func TestAnswers(t *testing.T) {
	const started, finished = `{"QueryId":"q"}`, `{"QueryStatus":"FINISHED"}`
	rows := func(rows string) string { return `{"QueryStatus":"FINISHED","QueryResultRows":[` + rows + `]}` }
	for _, tc := range []struct {
		name    string
		answers []string
		want    string // "" is success
	}{
		{"rows", []string{started, finished, rows(`[{"UID":"a"},{"AT":"2026-01-31 12:00:00"},{"times":"2"}]`)}, ""},
		{"busy, then rows", []string{`{"__type":"MaxConcurrentQueriesException","message":"busy"}`, started, finished, rows("")}, ""},
		{"failed", []string{started, `{"QueryStatus":"FAILED","ErrorMessage":"too much"}`}, "FAILED: too much"},
		{"timed out", []string{started, `{"QueryStatus":"TIMED_OUT"}`}, "TIMED_OUT"},
		{"cancelled meanwhile", []string{started, finished, `{"QueryStatus":"CANCELLED"}`}, "CANCELLED"},
		{"nothing of a query", []string{`{}`}, "not one of CloudTrail"},
		{"nothing of its status", []string{started, `{}`}, "not one of CloudTrail"},
		{"nothing of its result", []string{started, finished, `{}`}, "not one of CloudTrail"},
		{"no permission", []string{`{"__type":"AccessDeniedException","message":"no"}`}, "AccessDenied"},
		{"row without a UID", []string{started, finished, rows(`[{"at":"2026-01-31 12:00:00"},{"times":"1"}]`)}, "no UID"},
		{"row without a time", []string{started, finished, rows(`[{"uid":"a"},{"times":"1"}]`)}, "time"},
		{"row without a count", []string{started, finished, rows(`[{"uid":"a"},{"at":"2026-01-31 12:00:00"},{"times":"0"}]`)}, "count"},
		{"the same page again and again", []string{started, finished, `{"QueryStatus":"FINISHED","NextToken":"t"}`, `{"QueryStatus":"FINISHED","NextToken":"t"}`}, "twice"},
		{"two pages in turn", []string{started, finished, `{"QueryStatus":"FINISHED","NextToken":"t"}`, `{"QueryStatus":"FINISHED","NextToken":"u"}`, `{"QueryStatus":"FINISHED","NextToken":"t"}`, rows("")}, "twice"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := failure(t.Context(), scripted(t, tc.answers...))
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if strings.HasPrefix(tc.name, "nothing of ") && !strings.Contains(audit.Hint(err), "something between the relay and AWS") {
				t.Errorf("hint %q", audit.Hint(err))
			}
		})
	}
}

func TestStopsWhenToldTo(t *testing.T) {
	l := scripted(t, `{"QueryId":"q"}`, `{"QueryStatus":"RUNNING"}`, `{"QueryStatus":"RUNNING"}`)
	ctx, cancel := context.WithTimeout(t.Context(), 80*time.Millisecond)
	defer cancel()
	if err := failure(ctx, l); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestStoreID(t *testing.T) {
	for _, id := range []string{"", "x", "11111111-2222-3333-4444-55555555555'", cloudtrailtest.EventDataStore + "\n"} {
		if _, err := New(aws.Config{}, id); err == nil {
			t.Errorf("%q is taken", id)
		}
	}
}

func BenchmarkEvents(b *testing.B) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	const seconds, each = 1000, 50
	_, url := holding(b, seconds, each, at)
	l := open(b, url, cloudtrailtest.EventDataStore, cloudtrailtest.SecretAccessKey)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range l.Events(b.Context(), audit.MinEventTime, audit.MaxEventTime) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != seconds*each {
			b.Fatalf("%d events", n)
		}
	}
}
