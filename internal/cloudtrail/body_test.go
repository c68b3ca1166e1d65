package cloudtrail

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

// plain encodes a body the ordinary way.
func plain(t failer, events []AuditEvent) []byte {
	type wire struct {
		ID       *string `json:"id"`
		Data     *string `json:"eventData"`
		Checksum *string `json:"eventDataChecksum,omitempty"`
	}
	in := struct {
		AuditEvents []wire `json:"auditEvents"`
	}{[]wire{}}
	for _, e := range events {
		in.AuditEvents = append(in.AuditEvents, wire{e.Id, e.EventData, e.EventDataChecksum})
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(in); err != nil {
		t.Fatalf("encoding: %v", err)
	}
	// encoding/json escapes these two, for JavaScript's sake.
	text := strings.NewReplacer(`\u2028`, "\u2028", `\u2029`, "\u2029").Replace(b.String())
	return []byte(strings.TrimSuffix(text, "\n"))
}

func TestBodyIsWhatEncodingJSONWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		long := rapid.SampledFrom([]int{0, 1, 100, 8191, 8192, 8193, 16384, 100_000})
		events := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) AuditEvent {
			id := rapid.StringMatching(`[a-z]{1,5}`).Draw(t, "id")
			unit := rapid.SampledFrom([]string{"x", `"`, `\`, "\x01\n\u007f", "€", "<&>"}).Draw(t, "unit")
			data := strings.Repeat(unit, long.Draw(t, "long")/len(unit)) + strings.ToValidUTF8(strings.ReplaceAll(rapid.String().Draw(t, "data"), `\`, "/"), "")
			e := AuditEvent{Id: &id, EventData: &data}
			if rapid.Bool().Draw(t, "sum") {
				e.EventDataChecksum = &id
			}
			return e
		}), 0, 4).Draw(t, "events")
		want := plain(t, events)
		p, hash, length := newPayload(events)
		defer p.release()
		if sum := sha256.Sum256(want); hash != hex.EncodeToString(sum[:]) || length != int64(len(want)) {
			t.Fatalf("%d bytes of hash %s, want %d", length, hash, len(want))
		}
		if (p.encoded != nil) != (len(want) <= maxKept) && len(want) < maxKept || len(p.encoded) > maxKept+6*chunk {
			t.Fatalf("%d bytes were kept of %d", len(p.encoded), len(want))
		}
		for range 2 { // as for a second connection
			got, err := io.ReadAll(iotest.HalfReader(p.body()))
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("read %d bytes, want %d: %v", len(got), len(want), err)
			}
		}
	})
}

func TestLargeBodyIsNotReadAfterItsCall(t *testing.T) {
	id, data := "a", strings.Repeat("x", 2*maxKept)
	p, _, _ := newPayload([]AuditEvent{{Id: &id, EventData: &data}})
	b := p.body()
	if _, err := b.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	p.release()
	if n, err := b.Read(make([]byte, 5)); n != 0 || !errors.Is(err, errReleased) {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// An encoding of which a body may still be read is not used for another call.
func TestSmallBodyOutlivesItsCall(t *testing.T) {
	text := func(c string) (*string, *string) { id, data := c, strings.Repeat(c, 1000); return &id, &data }
	id, data := text("a")
	events := []AuditEvent{{Id: id, EventData: data}}
	want := plain(t, events)
	for range 100 {
		p, _, _ := newPayload(events)
		b := p.body()
		p.release()
		id, data := text("b")
		other, _, _ := newPayload([]AuditEvent{{Id: id, EventData: data}})
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("read %.40q, %v", got, err)
		}
		other.release()
	}
}

// One that the client is done with is: as many bodies as it was given were written.
func TestEncodingIsUsedAgain(t *testing.T) {
	srv := serve(t, acceptAll)
	s := newTestSink(t, Options{Endpoint: srv.URL})
	ctx := t.Context()
	id, data := s.Event(&entries(1)[0])
	text, sum := string(data), sha256.Sum256(data)
	checksum := base64.StdEncoding.EncodeToString(sum[:])
	used, hash, length := newPayload([]AuditEvent{{Id: &id, EventData: &text, EventDataChecksum: &checksum}})
	req, err := s.client.request(ctx, &PutAuditEventsInput{ChannelArn: &s.channelARN}, used, length)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := s.client.credentials.Retrieve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.client.signer.SignHTTP(ctx, creds, req, hash, signingName, s.client.region, time.Now()); err != nil {
		t.Fatal(err)
	}
	resp, err := s.client.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	if used.begun.Load() != 1 || used.ended.Load() != 1 {
		t.Errorf("%d bodies begun, %d ended", used.begun.Load(), used.ended.Load())
	}
}

// An answer that comes before the body has been read must not disturb the calls after it.
func TestPutWhenTheAnswerComesEarly(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer srv.Close()
	s := newTestSink(t, Options{Endpoint: srv.URL})
	es := entries(40)
	for i := range es {
		es[i].Payload = strings.Repeat("p", 60_000)
	}
	for range 5 {
		verdicts, err := s.Put(t.Context(), es)
		if err == nil || statuses(verdicts) != strings.Repeat("U", len(es)) {
			t.Fatalf("%s, %v", statuses(verdicts), err)
		}
	}
}

func TestEscapedSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text, err := json.Marshal(rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "object"))
		if err != nil {
			t.Fatal(err)
		}
		text = append(append([]byte(" \r\n\t"), text...), '\n')
		if got, want := escapedSize(text), len(appendEscaped(nil, string(text))); got != want {
			t.Fatalf("%d, want %d", got, want)
		}
	})
}
