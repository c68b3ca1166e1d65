package kongadmin

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/echo"
)

// echoes are ways in which a server may repeat a token.
func echoes(token string) map[string]string {
	each := func(format string) string {
		var b strings.Builder
		for _, c := range []byte(token) {
			fmt.Fprintf(&b, format, c)
		}
		return b.String()
	}
	m := map[string]string{
		"plain": token, "upper case": strings.ToUpper(token), "in words": "your token '" + token + "' is wrong",
		"first half": token[:len(token)/2+1], "lines": token[:5] + "\r\n  " + token[5:],
		"query": url.QueryEscape(token), "percent": each("%%%02x"), "percent, upper": each("%%%02X"), "quoted-printable": each("=%02X"),
		"percent twice": url.QueryEscape(each("%%%02x")),
		"JSON escapes":  each(`\u%04x`), "JavaScript escapes": each(`\x%02X`), "HTML": each("&#%d;"), "HTML, hex": each("&#x%x;"),
		"hex": hex.EncodeToString([]byte(token)), "hex, upper": strings.ToUpper(hex.EncodeToString([]byte(token))), "hex dump": each("%02x "),
		"hex within hex digits": "abc" + hex.EncodeToString([]byte(token)),
		"base64 twice":          base64.StdEncoding.EncodeToString([]byte(base64.StdEncoding.EncodeToString([]byte(token)))),
	}
	for n := range 4 {
		user := strings.Repeat("u", n) + ":"
		m[fmt.Sprintf("base64 %d", n)] = base64.StdEncoding.EncodeToString([]byte(user + token))
		m[fmt.Sprintf("base64 for URLs %d", n)] = "abc"[:n%3] + base64.RawURLEncoding.EncodeToString([]byte(user+token+"?>"))
	}
	return m
}

func TestEchoed(t *testing.T) {
	const token = "p4Ss~w0rd/with+odd=bytes"
	for name, text := range echoes(token) {
		if !(echo.Secrets{"", token}).In(text) {
			t.Errorf("%s: %s passes", name, text)
		}
	}
	for _, text := range []string{
		"", "Not found", "Invalid RBAC credentials. Token or User credentials required", "An unexpected error occurred",
		"relay, you do not have permissions to read this resource", `{"code":7,"name":"invalid options"}`, "502 Bad Gateway: 502",
	} {
		if (echo.Secrets{"", token}).In(text) || (echo.Secrets{}).In(text) || (echo.Secrets{""}).In(text) {
			t.Errorf("%q is no echo", text)
		}
	}
}

// Whatever way the token comes back, it gets into no error, no log and no version.
func TestEchoesOfTheToken(t *testing.T) {
	for name, said := range echoes(secret) {
		t.Run(name, func(t *testing.T) {
			answers := map[string]http.HandlerFunc{
				"message": func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(http.StatusServiceUnavailable)
					say(w, fmt.Sprintf(`{"message":%q}`, said))
				},
				"text": func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "text/plain")
					w.WriteHeader(http.StatusForbidden)
					say(w, said)
				},
				"title": func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(http.StatusBadRequest)
					say(w, "<title>"+said+"</title>")
				},
				"no HTTP":    func(w http.ResponseWriter, _ *http.Request) { hijack(w, said+"\r\n\r\n") },
				"bad header": func(w http.ResponseWriter, _ *http.Request) { hijack(w, "HTTP/1.1 200 OK\r\n"+said+"\r\n\r\n") },
			}
			for kind, answer := range answers {
				s := serve(t, answer)
				err := refused(t, newClient(t, Options{URL: s.URL, Token: token(secret), Retries: 1}), all)
				if text := err.Error() + audit.Hint(err); (echo.Secrets{secret}).In(strings.ReplaceAll(text, echo.Withheld, "")) {
					t.Errorf("%s: %s", kind, text)
				}
			}
		})
	}
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Server", "kong/"+secret)
		say(w, `{"data":[{"request_id":"a"}],"version":"`+secret+`"}`)
	})
	page, err := newClient(t, Options{URL: s.URL, Token: token(secret)}).Page(t.Context(), all)
	if err != nil || page.Entries[0].KongVersion != "" {
		t.Errorf("%+v, %v", page.Entries, err)
	}
}
