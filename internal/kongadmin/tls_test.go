package kongadmin

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/certtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

func TestTLS(t *testing.T) {
	k, mutualAuthority, openAuthority := kongtest.New(kongtest.Options{Token: secret}), certtest.New(t, nil), certtest.New(t, nil)
	mutualCA, openCA := mutualAuthority.Pool(), openAuthority.Pool()
	pair, stranger := mutualAuthority.Issue(t, nil).Certificate, openAuthority.Issue(t, nil).Certificate
	t.Cleanup(func() { k.Close() })
	k.Add(rows(1)...)
	mutual, err := k.StartTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: mutualCA,
	})
	if err != nil {
		t.Fatal(err)
	}
	open := kongtest.New(kongtest.Options{})
	t.Cleanup(func() { open.Close() })
	oneWay, err := open.StartTLS(&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{stranger}})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := open.Start()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		url    string
		config *tls.Config
		hint   string // part of it; empty where it works
	}{
		"custom CA":                   {oneWay, &tls.Config{RootCAs: openCA}, ""},
		"no custom CA":                {oneWay, nil, "the CA that signed"},
		"another CA":                  {oneWay, &tls.Config{RootCAs: mutualCA}, "the CA that signed"},
		"server name":                 {oneWay, &tls.Config{RootCAs: openCA, ServerName: "localhost"}, ""},
		"wrong server name":           {oneWay, &tls.Config{RootCAs: openCA, ServerName: "kong.internal"}, "--kong-tls-server-name"},
		"client certificate":          {mutual, &tls.Config{RootCAs: mutualCA, Certificates: []tls.Certificate{pair}}, ""},
		"no client certificate":       {mutual, &tls.Config{RootCAs: mutualCA}, "--kong-client-cert"},
		"no client certificate 1.2":   {mutual, &tls.Config{RootCAs: mutualCA, MaxVersion: tls.VersionTLS12}, "--kong-client-cert"},
		"another's client":            {mutual, &tls.Config{RootCAs: mutualCA, Certificates: []tls.Certificate{stranger}}, "--kong-client-cert"},
		"old TLS":                     {oneWay, &tls.Config{RootCAs: openCA, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "TLS 1.2"},
		"https to a plain port":       {strings.Replace(plain, "http:", "https:", 1), &tls.Config{RootCAs: openCA}, "http://"},
		"plain HTTP to a TLS port":    {strings.Replace(oneWay, "https:", "http:", 1), nil, "https://"},
		"plain HTTP to a mutual port": {strings.Replace(mutual, "https:", "http:", 1), nil, "https://"},
	} {
		t.Run(name, func(t *testing.T) {
			// A server that refuses a certificate and closes may be heard to reset the
			// connection before its reason is, so that it takes more than one attempt.
			most := 1
			if c.url == mutual {
				most = 100
			}
			client := newClient(t, Options{URL: c.url, TLS: c.config, Token: token(secret), Retries: most})
			if c.hint == "" {
				if _, err := client.Page(t.Context(), all); err != nil {
					t.Error(err)
				}
				if c.config.NextProtos != nil {
					t.Error("the caller's configuration was changed")
				}
				return
			}
			// In the middle of a walk as well as at its start.
			for _, q := range []audit.Query{all, {Size: 10, Offset: "x"}} {
				err := refused(t, client, q)
				if !strings.Contains(hint(err), c.hint) || errors.Is(err, audit.ErrBadOffset) {
					t.Errorf("%v, hint %q", err, hint(err))
				}
			}
			if n := retries(client); n != 0 && c.url != mutual {
				t.Errorf("%d retries", n)
			}
		})
	}
}

// A server that speaks TLS only may close the connection without an answer.
func TestPlainHTTPThatIsReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*net.TCPConn).SetLinger(0)
			_, _ = c.Read(make([]byte, 1))
			_ = c.Close() // with a reset
		}
	}()
	err = refused(t, newClient(t, Options{URL: "http://" + l.Addr().String(), Retries: 1}), all)
	if !strings.Contains(audit.Hint(err), "https://") {
		t.Errorf("%v, hint %q", err, audit.Hint(err))
	}
}

// TestPortOfAnother: what a port answers that is not the Admin API's says what it is, also if the time
// for a page is over by then.
func TestPortOfAnother(t *testing.T) {
	for name, c := range map[string]struct{ answer, want string }{
		"Redis":     {"-ERR wrong number of arguments for 'get' command\r\n", "does not speak HTTP"},
		"SSH":       {"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"},
		"TLS alert": {"\x15\x03\x01\x00\x02\x02\x46", "https://"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) { hijack(w, c.answer) })
			// The first answer is there long before the time is over, on a busy machine as well.
			client := newClient(t, Options{URL: s.URL, Timeout: 3 * time.Second, Retries: 1_000_000})
			if err := refused(t, client, all); !strings.Contains(audit.Hint(err), c.want) {
				t.Errorf("%v, hint %q", err, audit.Hint(err))
			}
		})
	}
}

// A server without TLS may wait for the end of what is a command to it. A Kong that hangs looks the same.
func TestNoTLSAtAll(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	client := newClient(t, Options{URL: "https://" + l.Addr().String(), Timeout: 3 * time.Second, Retries: 1_000_000})
	client.http.Transport.(*http.Transport).TLSHandshakeTimeout = 10 * time.Millisecond
	if err := refused(t, client, all); !strings.Contains(audit.Hint(err), "does not answer in TLS") || !strings.Contains(audit.Hint(err), "Kong hangs") {
		t.Errorf("%v, hint %q", err, audit.Hint(err))
	}
}

// nginx answers with its own pages where TLS is amiss.
func TestTLSRefusedByNginx(t *testing.T) {
	for title, want := range map[string]string{
		"400 The plain HTTP request was sent to HTTPS port": "https://",
		"400 No required SSL certificate was sent":          "--kong-client-cert",
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(400)
			say(w, "<html>\r\n<head><title>"+title+"</title></head>\r\n<body>\r\n<center>nginx</center></body></html>")
		})
		for _, q := range []audit.Query{all, {Size: 10, Offset: "x"}} {
			err := refused(t, newClient(t, Options{URL: s.URL}), q)
			if !strings.Contains(hint(err), want) || !strings.Contains(err.Error(), title) || errors.Is(err, audit.ErrBadOffset) {
				t.Errorf("%v, hint %q", err, hint(err))
			}
		}
	}
}
