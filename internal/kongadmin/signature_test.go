package kongadmin

import (
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

func rsaKey(t testing.TB, size int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, size)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Both forms that Kong may sign, and what is not as it was signed.
func TestVerification(t *testing.T) {
	key, other := rsaKey(t, 2048), rsaKey(t, 2048)
	payload, none, forged, removed := "{\"a\":\"é\\n|\xff\"}", "", "Zm9yZ2Vk", "token"
	odd := auditlog.Row{
		RequestID: "odd", RequestTimestamp: time.Now().Unix(), ClientIP: "::1", Method: "POST", Path: "/a?b=\"|\x01\"", Status: 201,
		Payload: &payload, Workspace: &none, RemovedFromPayload: &removed,
		Extra: map[string]jsontext.Value{
			"zone": jsontext.Value(`"caf\u00e9"`), "attempt": jsontext.Value("12"), "expire": jsontext.Value("99"), "nothing": jsontext.Value("null"),
		},
	}
	list := append(rows(5), odd)
	for name, c := range map[string]struct {
		timestamp bool
		check     *rsa.PublicKey
		change    func(*auditlog.Row)
		want      audit.Verification
	}{
		"without timestamp": {false, &key.PublicKey, nil, audit.Verified},
		"with timestamp":    {true, &key.PublicKey, nil, audit.VerifiedWithTimestamp},
		"no key":            {false, nil, nil, ""},
		"another key":       {false, &other.PublicKey, nil, audit.VerificationFailed},
		"forged":            {false, &key.PublicKey, func(r *auditlog.Row) { r.Signature = &forged }, audit.VerificationFailed},
		"no base64":         {false, &key.PublicKey, func(r *auditlog.Row) { s := "%"; r.Signature = &s }, audit.VerificationFailed},
		"empty":             {false, &key.PublicKey, func(r *auditlog.Row) { r.Signature = &none }, audit.Unsigned},
		"left out":          {false, &key.PublicKey, func(r *auditlog.Row) { r.Omit = []string{"signature"} }, audit.Unsigned},
		"null": {false, &key.PublicKey, func(r *auditlog.Row) {
			r.Extra = map[string]jsontext.Value{"signature": jsontext.Value("null")}
		}, audit.Unsigned},
		"not a text": {false, &key.PublicKey, func(r *auditlog.Row) {
			r.Extra = map[string]jsontext.Value{"signature": jsontext.Value("{}")}
		}, audit.VerificationFailed},
	} {
		t.Run(name, func(t *testing.T) {
			k, u := kong(t, kongtest.Options{SigningKey: key, SignTimestamp: c.timestamp, SkipReads: true})
			for _, r := range list {
				if c.change != nil {
					c.change(&r)
				}
				k.Add(r)
			}
			page, err := newClient(t, Options{URL: u, PublicKey: c.check}).Page(t.Context(), all)
			if err != nil || len(page.Entries) != len(list) {
				t.Fatalf("%d entries, %v", len(page.Entries), err) // delivered in any case
			}
			for _, e := range page.Entries {
				if e.Verification != c.want {
					t.Errorf("%s: %q, want %q", e.ID, e.Verification, c.want)
				}
			}
		})
	}
}

// Every field but the time that is left counts.
func TestVerificationOfChangedRow(t *testing.T) {
	key := rsaKey(t, 2048)
	row := auditlog.Row{RequestID: "a", RequestTimestamp: time.Now().Unix(), ClientIP: "::1", Method: "GET", Path: "/a", Status: 200}
	row.Sign(key, false)
	raw := `{"request_id":"a","request_timestamp":5,"client_ip":"::1","method":"GET","path":"/a","status":200,"ttl":7,"signature":"` + *row.Signature + `"}`
	for old, c := range map[string]struct {
		changed string
		want    audit.Verification
	}{
		`"ttl":7`:               {`"ttl":6`, audit.Verified},
		`"request_timestamp":5`: {`"request_timestamp":6`, audit.Verified},
		`"method":"GET"`:        {`"method":"PUT"`, audit.VerificationFailed},
		`"status":200`:          {`"status":201`, audit.VerificationFailed},
		`"path":"/a"`:           {`"path":"/a","payload":""`, audit.VerificationFailed},
		`"client_ip":"::1",`:    {``, audit.VerificationFailed},
		`{`:                     {`{"workspace":null,`, audit.Verified},
	} {
		page, err := decodePage(`{"data":[`+strings.Replace(raw, old, c.changed, 1)+`]}`, requestLog, pageDate, &key.PublicKey)
		if err != nil || page.Entries[0].Verification != c.want {
			t.Errorf("%s for %s: %+v, %v, want %s", c.changed, old, page.Entries, err, c.want)
		}
	}
}
