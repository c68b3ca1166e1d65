package cloudtrail

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

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

func TestBodyIsNotReadAfterItsCall(t *testing.T) {
	id, small, large := "a", "{}", strings.Repeat("x", 2*maxKept)
	for _, data := range []*string{&small, &large} {
		p, _, _ := newPayload([]AuditEvent{{Id: &id, EventData: data}})
		b := p.body()
		if _, err := b.Read(make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		p.release()
		if n, err := b.Read(make([]byte, 5)); n != 0 || !errors.Is(err, errReleased) {
			t.Errorf("read %d bytes, %v", n, err)
		}
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
