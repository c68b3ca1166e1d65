package cloudwatch_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudwatch"
	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
)

// delivered fails the test unless every entry was accepted and is kept once.
func delivered(t *testing.T, l *logs, list []audit.Entry, verdicts []audit.Verdict, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if len(verdicts) != len(list) {
		t.Fatalf("%d verdicts for %d entries", len(verdicts), len(list))
	}
	kept := l.uids()
	for i, v := range verdicts {
		if v.Status != audit.Accepted || kept[list[i].ID] != 1 {
			t.Fatalf("entry %s: verdict %+v, kept %d times", list[i].ID, v, kept[list[i].ID])
		}
	}
	if len(kept) != len(list) {
		t.Fatalf("%d kept of %d", len(kept), len(list))
	}
}

func TestPutKeepsTheLimitsOfACall(t *testing.T) {
	tests := map[string]struct {
		list  []audit.Entry
		calls int
	}{
		"nothing":          {nil, 0},
		"one":              {entries(1, 0, ""), 1},
		"10,000 events":    {entries(10_001, 0, ""), 2},
		"1,048,576 bytes":  {entries(11, 0, strings.Repeat("x", 104_800)), 2},
		"24 hours":         {entries(25, time.Hour, ""), 2},
		"13 days":          {entries(13, 24*time.Hour, ""), 13},
		"largest event":    {entries(2, 0, strings.Repeat("x", 999_970)), 2},
		"two hours ahead":  {[]audit.Entry{{ID: "a", Timestamp: noon.Add(3 * time.Hour).Unix()}}, 1},
		"a month old":      {[]audit.Entry{{ID: "a", Timestamp: noon.Add(-30 * 24 * time.Hour).Unix()}}, 1},
		"14 days, exactly": {[]audit.Entry{{ID: "a", Timestamp: noon.Add(-14 * 24 * time.Hour).Unix()}}, 1},
		"without a time":   {[]audit.Entry{{ID: "a"}}, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l, s := start(t, nil)
			slices.Reverse(test.list) // Kong may send the newest first
			verdicts, err := s.Put(t.Context(), test.list)
			delivered(t, l, test.list, verdicts, err)
			if got := l.Counts().Calls; got != test.calls {
				t.Errorf("%d calls, want %d", got, test.calls)
			}
		})
	}
}

func TestPutFilesWhatIsPastTheGroupsRetentionUnderThePresent(t *testing.T) {
	l, s := start(t, nil)
	l.Update(func(o *cloudwatchtest.Options) { o.Retention = 3 })
	list := entries(40, 3*time.Hour, "")
	verdicts, err := s.Put(t.Context(), list)
	delivered(t, l, list, verdicts, err)
	present := 0
	for _, e := range l.Events() {
		if e.At.Equal(noon) {
			present++
		}
	}
	if want := 40 - 24; present != want { // the last of the 24 in the window is of noon itself
		t.Errorf("%d events are filed under the present, want %d", present, want)
	}
}

func TestPutReportsAClockThatIsFarOff(t *testing.T) {
	l, s := start(t, nil)
	l.SetFaults(cloudwatchtest.Faults{Clock: -5 * time.Hour})
	verdicts, err := s.Put(t.Context(), entries(2, 0, ""))
	if err == nil || !strings.Contains(audit.Hint(err), "clock") {
		t.Fatalf("error %v", err)
	}
	for _, v := range verdicts {
		if v.Status != audit.Retryable || v.Code != "TooNew" {
			t.Errorf("verdict %+v", v)
		}
	}
}

func TestPutMakesTheStream(t *testing.T) {
	for _, raced := range []bool{false, true} {
		l, s := start(t, nil)
		setStreams := func(names ...string) { l.Update(func(o *cloudwatchtest.Options) { o.Streams = names }) }
		setStreams()
		l.fault = func(operation string, _ int, _ string) (int, string) {
			if raced && operation == "CreateLogStream" {
				setStreams("kong") // somebody else was faster
			}
			return 0, ""
		}
		list := entries(3, 0, "")
		verdicts, err := s.Put(t.Context(), list)
		delivered(t, l, list, verdicts, err)
	}
}

func TestPutStandsBadEventsAlone(t *testing.T) {
	l, s := start(t, nil)
	l.fault = func(operation string, _ int, body string) (int, string) {
		if strings.Contains(body, "id00003") || strings.Contains(body, "id00090") {
			return 400, apiError("InvalidParameterException", "at logEvents: "+body[:min(len(body), 300)])
		}
		return 0, ""
	}
	list := entries(100, time.Second, "hidden")
	list[50].Payload = strings.Repeat("x", 1<<20)
	verdicts, err := s.Put(t.Context(), list)
	if err != nil {
		t.Fatal(err)
	}
	// The code is not known to be about events: only a second refusal, after others
	// were accepted, makes it so.
	for _, i := range []int{3, 90} {
		if verdicts[i].Status != audit.Retryable {
			t.Errorf("entry %d: %+v", i, verdicts[i])
		}
		again, err := s.Put(t.Context(), list[i:i+1])
		if err != nil {
			t.Fatal(err)
		}
		verdicts[i] = again[0]
	}
	for i, v := range verdicts {
		switch i {
		case 3, 90:
			if v.Status != audit.Rejected || v.Code != "InvalidParameterException" || strings.Contains(v.Reason, "hidden") {
				t.Errorf("entry %d: %+v", i, v)
			}
		case 50:
			if v.Status != audit.Rejected || v.Code != "InvalidSize" {
				t.Errorf("entry %d: %+v", i, v)
			}
		default:
			if v.Status != audit.Accepted {
				t.Errorf("entry %d: %+v", i, v)
			}
		}
	}
	if kept := l.uids(); len(kept) != 97 {
		t.Errorf("%d kept", len(kept))
	}
}

// A code that nobody knows and that hits everything is a state of the account.
func TestPutRefusedAlike(t *testing.T) {
	for name, size := range map[string]int{"together": 100, "one by one": 1} {
		t.Run(name, func(t *testing.T) {
			l, s := start(t, nil)
			if _, err := s.Put(t.Context(), entries(10, time.Second, "")); err != nil {
				t.Fatal(err)
			}
			l.fault = func(string, int, string) (int, string) { return 400, apiError("SomethingNew", "") }
			stopped := false
			for batch := range slices.Chunk(entries(100, time.Second, ""), size) {
				verdicts, err := s.Put(t.Context(), batch)
				stopped = stopped || audit.NeedsPerson(err)
				for _, v := range verdicts {
					if v.Status != audit.Retryable {
						t.Fatalf("%+v", v)
					}
				}
			}
			if !stopped || l.count["PutLogEvents"] > 1+100/size+3 {
				t.Errorf("stopped: %v, %d calls", stopped, l.count["PutLogEvents"])
			}
		})
	}
}

// Emulators still answer so to a batch whose first answer was lost.
func TestPutAlreadyAccepted(t *testing.T) {
	l, s := start(t, nil)
	l.fault = func(string, int, string) (int, string) {
		return 400, apiError("DataAlreadyAcceptedException", "The given batch of log events has already been accepted.")
	}
	verdicts, err := s.Put(t.Context(), entries(3, time.Second, ""))
	for _, v := range verdicts {
		if v.Status != audit.Accepted || err != nil {
			t.Errorf("%+v, %v", v, err)
		}
	}
}

// Failures of a call must never make an entry a dead letter, and must keep what was
// accepted before them.
func TestPutFailures(t *testing.T) {
	tests := map[string]struct {
		status   int
		answer   string
		settings string // part of the hint, for what only a person can heal
		code     string
	}{
		"throttled":        {400, apiError("ThrottlingException", "Rate exceeded"), "", "ThrottlingException"},
		"broken":           {500, apiError("InternalFailure", ""), "", "InternalFailure"},
		"unavailable":      {503, apiError("ServiceUnavailableException", ""), "", "ServiceUnavailableException"},
		"too many":         {429, apiError("TooManyRequestsException", ""), "", "TooManyRequestsException"},
		"a proxy's 502":    {502, "<html>", "", "HTTP502"},
		"a proxy's 400":    {400, "<html>", "", "HTTP400"},
		"a proxy's 200":    {200, "<html>", "", "BadAnswer"},
		"a proxy's 403":    {403, "<html>", "", "HTTP403"},
		"empty 400":        {400, "", "", "HTTP400"},
		"without a code":   {403, "{}", "", "HTTP403"},
		"no permission":    {400, apiError("AccessDeniedException", "not authorized to perform: logs:PutLogEvents"), "logs:PutLogEvents", "AccessDeniedException"},
		"expired":          {400, apiError("ExpiredTokenException", "expired"), "sign in again", "ExpiredTokenException"},
		"unknown key":      {400, apiError("UnrecognizedClientException", "invalid"), "AWS_PROFILE", "UnrecognizedClientException"},
		"wrong signature":  {400, apiError("InvalidSignatureException", "expired"), "clock", "InvalidSignatureException"},
		"another service":  {400, apiError("UnknownOperationException", ""), "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", "UnknownOperationException"},
		"stream not there": {400, apiError("ResourceNotFoundException", "stream"), "", "ResourceNotFoundException"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l, s := start(t, nil)
			l.fault = func(operation string, n int, _ string) (int, string) {
				if operation == "PutLogEvents" && n > 0 {
					return test.status, test.answer
				}
				return 0, ""
			}
			list := entries(3, 30*time.Hour, "") // a call for each
			verdicts, err := s.Put(t.Context(), list)
			if err == nil {
				t.Fatal("no error")
			}
			if verdicts[0].Status != audit.Accepted || l.uids()[list[0].ID] != 1 {
				t.Errorf("before the failure: %+v", verdicts[0])
			}
			if verdicts[1].Status != audit.Retryable || verdicts[1].Code != test.code {
				t.Errorf("at the failure: %+v", verdicts[1])
			}
			if verdicts[2] != (audit.Verdict{}) {
				t.Errorf("after the failure: %+v", verdicts[2])
			}
			var settings *audit.SettingsError
			if errors.As(err, &settings) != (test.settings != "") {
				t.Fatalf("a settings error? %v", err)
			}
			if settings != nil && !strings.Contains(audit.Hint(settings), test.settings) {
				t.Errorf("hint %q", audit.Hint(settings))
			}
			if got := l.count["PutLogEvents"]; got > 3 {
				t.Errorf("%d calls: who calls Put decides about retries", got)
			}
		})
	}
}

func TestPutWithoutCredentials(t *testing.T) {
	broken := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, nil
	})
	for _, provider := range []aws.CredentialsProvider{nil, broken} {
		l, s := start(t, func(o *cloudwatch.Options) { o.Config.Credentials = provider })
		_, err := s.Put(t.Context(), entries(1, 0, ""))
		var settings *audit.SettingsError
		if !errors.As(err, &settings) || !strings.Contains(audit.Hint(settings), "AWS_PROFILE") {
			t.Errorf("error %v", err)
		}
		if len(l.count) != 0 {
			t.Errorf("calls %v", l.count)
		}
	}
}

func TestCancelledPutIsNotASetting(t *testing.T) {
	_, s := start(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Put(ctx, entries(1, 0, ""))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestMissingGroup(t *testing.T) {
	l, s := start(t, nil)
	l.Update(func(o *cloudwatchtest.Options) { o.Missing = true })
	_, put := s.Put(t.Context(), entries(1, 0, ""))
	for _, err := range []error{put, s.Check(t.Context())} {
		var settings *audit.SettingsError
		if !errors.As(err, &settings) || !strings.Contains(audit.Hint(settings), "--log-group") {
			t.Errorf("error %v", err)
		}
	}
}

func TestCheckLeavesNoEvent(t *testing.T) {
	l, s := start(t, nil)
	l.Update(func(o *cloudwatchtest.Options) { o.Streams = nil })
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(l.Streams()) != 1 || len(l.Events()) != 0 || l.Counts().Calls != 1 || l.Counts().Failed != 1 {
		t.Errorf("streams %v, %+v", l.Streams(), l.Counts())
	}
	l.fault = func(operation string, _ int, _ string) (int, string) {
		if operation == "PutLogEvents" {
			return http.StatusBadRequest, apiError("AccessDeniedException", "logs:PutLogEvents")
		}
		return 0, ""
	}
	var settings *audit.SettingsError
	if err := s.Check(t.Context()); !errors.As(err, &settings) {
		t.Errorf("error %v", err)
	}
}
