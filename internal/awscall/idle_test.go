package awscall

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestForgottenConnections makes a call after a pause in which the network forgot the
// connections: what is sent on them gets no answer. The call goes over a new one.
func TestForgottenConnections(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	defer srv.Close()
	network, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	var forgotten atomic.Int64 // connections up to this one
	var opened atomic.Int64
	go func() {
		for {
			c, err := network.Accept()
			if err != nil {
				return
			}
			n := opened.Add(1)
			up, err := net.Dial("tcp", strings.TrimPrefix(srv.URL, "http://"))
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, up)
			}()
			go func() {
				defer up.Close()
				buffer := make([]byte, 4<<10)
				for {
					read, err := c.Read(buffer)
					if err != nil {
						return
					}
					if n <= forgotten.Load() { // a network would swallow it, and nobody would ever answer
						t.Error("a forgotten connection is used again")
						return
					}
					_, _ = up.Write(buffer[:read])
				}
			}()
		}
	}()

	now := time.Now()
	base := http.DefaultTransport.(*http.Transport).Clone()
	client := newHTTPClient(base)
	client.Transport.(*transport).now = func() time.Time { return now }
	defer base.CloseIdleConnections()
	call := func() error {
		resp, err := client.Get("http://" + network.Addr().String())
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	for range 2 {
		if err := call(); err != nil {
			t.Fatal(err)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for two calls in a row", n)
	}
	forgotten.Store(opened.Load())
	now = now.Add(maxIdle + time.Second)
	if err := call(); err != nil {
		t.Errorf("after the pause: %v", err)
	}
	if n := opened.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}
