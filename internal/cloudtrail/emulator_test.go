package cloudtrail_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/awstest"
	"github.com/kong-cloudtrail/relay/internal/cloudtrail"
	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
)

// emulate starts the strict service and a Destination for it.
func emulate(t *testing.T, so cloudtrailtest.Options, o cloudtrail.Options) (*cloudtrailtest.Server, *cloudtrail.Destination) {
	t.Helper()
	so.CallsPerSecond = -1
	srv := cloudtrailtest.New(so)
	running := httptest.NewServer(srv)
	t.Cleanup(running.Close)
	if o.ChannelARN == "" {
		o.ChannelARN = cloudtrailtest.ChannelARN
	}
	if o.Config.Credentials == nil {
		o.Config.Credentials = key(cloudtrailtest.AccessKeyID, cloudtrailtest.SecretAccessKey)
	}
	o.Config.BaseEndpoint, o.Hostname = &running.URL, "https://kong.example.com:8444"
	s, err := cloudtrail.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return srv, s
}

func key(id, secret string) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}, nil
	})
}

// odd returns n entries, among them all that a service may stumble over.
func odd(n int) []audit.Entry {
	es := make([]audit.Entry, n)
	for i := range es {
		id := fmt.Sprintf("8XsOaNYwXgn0VmgA8qYYpVte%08d", i)
		es[i] = audit.Entry{
			ID: id, RequestID: id, Timestamp: 1663013700, ClientIP: "172.31.76.246", Method: "POST", Path: "/services?size=100",
			Status: 201, TTL: 2591940, Workspace: "cca82c73-2365-441b-8860-9e074d93b205", Payload: `{"name":"x","n":1e400}`,
			RBACUserID: "2e959b45-0053-41cc-9c2c-5458d0964331", RBACUserName: "admin",
		}
		switch e := &es[i]; i % 16 {
		case 0:
			e.Path, e.Method = "", ""
		case 1:
			e.TTL, e.RBACUserID, e.Workspace = audit.NoTTL, "", ""
		case 2:
			e.Payload = `[1,2]`
		case 3:
			e.Payload = "plain \xff\x00 \u2028 text"
		case 4:
			e.Payload = `{"k":"` + strings.Repeat(`\"é`, 75_000) + `"}`
		case 5:
			e.Payload = strings.Repeat("\x01", 300_000)
		case 6:
			e.Path = "/" + strings.Repeat("é", 2000) + "?" + strings.Repeat("%ff&", 40_000)
		case 7:
			e.Unknown, e.RemovedFromPayload = `{"u":"`+strings.Repeat("u", 40_000)+`"}`, strings.Repeat(`"`, 40_000)
		case 8:
			e.ClientIP, e.Timestamp = "unix:", -1<<62
		case 9:
			e.RequestID, e.KongVersion = "", strings.Repeat("9.", 300)
		}
	}
	return es
}

func TestEmulatorAcceptsAnyEntry(t *testing.T) {
	srv, s := emulate(t, cloudtrailtest.Options{}, cloudtrail.Options{})
	es := odd(160)
	verdicts, err := s.Put(t.Context(), es)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range verdicts {
		if v.Status != audit.Accepted {
			t.Fatalf("entry %d: %+v", i, v)
		}
	}
	if c := srv.Counts(); c.Refused != 0 || c.Failed != 0 || c.Distinct != len(es) || c.Repeats != 0 {
		t.Errorf("counts %+v", c)
	}
	got := map[string]string{}
	for _, e := range srv.Events() {
		got[e.ID] = e.Data
		if e.UID != e.ID {
			t.Errorf("UID %s of %s", e.UID, e.ID)
		}
	}
	for i := range es {
		if id, data := s.Event(&es[i]); got[id] != string(data) {
			t.Errorf("entry %d did not arrive as it was sent", i)
		}
	}
}

func TestEmulatorWithFaults(t *testing.T) {
	srv, s := emulate(t, cloudtrailtest.Options{Faults: cloudtrailtest.Faults{
		Seed:   7,
		Omit:   0.05,
		Calls:  map[string]float64{"InternalFailure": 0.05, "ThrottlingException": 0.05, "ServiceUnavailable": 0.05},
		Events: map[string]float64{"Throttling": 0.05, "InternalFailure": 0.05},
		Reset:  0.05,
	}}, cloudtrail.Options{})
	var workers sync.WaitGroup
	all := odd(400)
	for w := range 4 {
		workers.Go(func() {
			left := all[w*100 : (w+1)*100]
			for round := 0; len(left) > 0; round++ {
				if round > 200 {
					t.Errorf("%d entries are left", len(left))
					return
				}
				verdicts, err := s.Put(t.Context(), left)
				if audit.NeedsPerson(err) {
					t.Error(err)
					return
				}
				var again []audit.Entry
				for i, v := range verdicts {
					switch v.Status {
					case audit.Retryable:
						again = append(again, left[i])
					case audit.Rejected:
						t.Errorf("refused: %+v", v)
					case audit.Accepted:
					}
				}
				left = again
			}
		})
	}
	workers.Wait()
	if c := srv.Counts(); c.Distinct != len(all) || c.Repeats != 0 {
		t.Errorf("counts %+v", c)
	}
}

func TestEmulatorWithLostAnswers(t *testing.T) {
	srv, s := emulate(t, cloudtrailtest.Options{}, cloudtrail.Options{})
	srv.Script(cloudtrailtest.Faults{LoseAnswer: 1}, cloudtrailtest.Faults{Garbage: 1})
	es := odd(1)
	for range 2 {
		verdicts, err := s.Put(t.Context(), es)
		if err == nil || verdicts[0].Status != audit.Retryable {
			t.Errorf("%+v, %v", verdicts, err)
		}
	}
	if verdicts, err := s.Put(t.Context(), es); err != nil || verdicts[0].Status != audit.Accepted {
		t.Errorf("%+v, %v", verdicts, err)
	}
}

func TestEmulatorWithWrongSettings(t *testing.T) {
	for _, c := range []struct {
		name string
		so   cloudtrailtest.Options
		o    cloudtrail.Options
		want string // in the hint
	}{
		{"channel", cloudtrailtest.Options{}, cloudtrail.Options{ChannelARN: strings.Replace(cloudtrailtest.ChannelARN, "11111111", "22222222", 1)}, "CHANNEL_ARN"},
		{"recipient", cloudtrailtest.Options{}, cloudtrail.Options{ChannelARN: strings.Replace(cloudtrailtest.ChannelARN, "111122223333", "444455556666", 1)}, "CHANNEL_ARN"},
		{"secret", cloudtrailtest.Options{}, cloudtrail.Options{Config: aws.Config{Credentials: key(cloudtrailtest.AccessKeyID, "x")}}, "AWS_SECRET_ACCESS_KEY"},
		{"key", cloudtrailtest.Options{}, cloudtrail.Options{Config: aws.Config{Credentials: key("AKIDOTHER", "x")}}, "AWS_ACCESS_KEY_ID"},
		{"Region", cloudtrailtest.Options{}, cloudtrail.Options{Config: aws.Config{Region: "us-west-2"}}, "REGION"},
		{"external id", cloudtrailtest.Options{ExternalID: "wanted"}, cloudtrail.Options{}, "external ID"},
		{"source", cloudtrailtest.Options{EventSource: "other"}, cloudtrail.Options{}, "Custom"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv, s := emulate(t, c.so, c.o)
			verdicts, err := s.Put(t.Context(), odd(150))
			var setting *audit.SettingsError
			if !errors.As(err, &setting) || !strings.Contains(audit.Hint(setting), c.want) {
				t.Errorf("%v", err)
			}
			for _, v := range verdicts {
				if v.Status != audit.Retryable {
					t.Fatalf("%+v", v)
				}
			}
			if n := srv.Counts().Events; n != 0 {
				t.Errorf("%d events were accepted", n)
			}
		})
	}
}

func TestEmulatorCheck(t *testing.T) {
	srv, s := emulate(t, cloudtrailtest.Options{ExternalID: "wanted"}, cloudtrail.Options{ExternalID: "wanted"})
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if n := srv.Counts().Events; n != 0 {
		t.Errorf("%d events were accepted", n)
	}
	srv.SetCredentials(awstest.Credential{AccessKeyID: "AKIDOTHER", SecretAccessKey: "x"})
	var setting *audit.SettingsError
	if err := s.Check(t.Context()); !errors.As(err, &setting) {
		t.Errorf("%v", err)
	}
}
