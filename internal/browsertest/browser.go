// Package browsertest drives a headless Chromium, so that a test sees a page as a person
// does. It speaks the DevTools protocol over a pipe.
package browsertest

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// patience bounds each answer of the browser, for a busy machine.
const patience = time.Minute

// Browser is a running Chromium. One goroutine uses it and its pages.
type Browser struct {
	tb      testing.TB
	log     string // file of what it says
	pipe    io.Writer
	last    int          // id of the last call
	answers chan message // closed once the browser has ended

	mu    sync.Mutex
	pages map[string]*Page // by session
}

// message is a call, its answer or an event.
type message struct {
	ID        int            `json:"id,omitzero"`
	SessionID string         `json:"sessionId,omitzero"`
	Method    string         `json:"method,omitzero"`
	Params    jsontext.Value `json:"params,omitzero"`
	Result    jsontext.Value `json:"result,omitzero"`
	Error     *struct {
		Message string `json:"message"`
	} `json:"error,omitzero"`
}

// Start starts a browser, and stops it with the test. Chromium has to be on the PATH.
func Start(tb testing.TB) *Browser {
	tb.Helper()
	b := &Browser{tb: tb, answers: make(chan message, 1), pages: map[string]*Page{}}
	toBrowser, in, err := os.Pipe()
	b.must(err)
	out, fromBrowser, err := os.Pipe()
	b.must(err)
	b.pipe = in
	dir, err := os.MkdirTemp("", "browsertest-")
	b.must(err)
	cmd := exec.CommandContext(context.WithoutCancel(tb.Context()), "chromium", "--headless=new", "--remote-debugging-pipe", "--user-data-dir="+dir,
		"--no-sandbox", // which a container has not the rights for
		"--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check", "--disable-background-networking",
		"--disable-component-update", "--disable-extensions", "--disable-sync", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
	cmd.ExtraFiles = []*os.File{toBrowser, fromBrowser} // its descriptors 3 and 4
	b.log = filepath.Join(dir, "stderr")
	said, err := os.Create(b.log)
	b.must(err)
	cmd.Stderr = said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("starting Chromium: %v", err)
	}
	_, _, _ = toBrowser.Close(), fromBrowser.Close(), said.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		b.read(out)
	}()
	tb.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with the processes that it has started
		_ = cmd.Wait()
		<-read
		_, _ = in.Close(), out.Close()
		if err := os.RemoveAll(dir); err != nil {
			tb.Logf("removing the profile: %v", err) // a process of the browser's may still write
		}
	})
	return b
}

// read takes messages, which end with a null byte, until the browser ends.
func (b *Browser) read(from io.Reader) {
	defer close(b.answers)
	r := bufio.NewReader(from)
	for {
		text, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if err := json.Unmarshal(text[:len(text)-1], &m, jsontext.AllowInvalidUTF8(true)); err != nil {
			return
		}
		if m.ID > 0 {
			b.answers <- m
			continue
		}
		b.mu.Lock()
		page := b.pages[m.SessionID]
		b.mu.Unlock()
		if page != nil {
			page.event(m.Method, m.Params)
		}
	}
}

// call makes a call, and decodes its result into out unless that is nil.
func (b *Browser) call(session, method string, params map[string]any, out any) {
	b.tb.Helper()
	text, err := json.Marshal(params)
	b.must(err)
	b.last++
	text, err = json.Marshal(message{ID: b.last, SessionID: session, Method: method, Params: text})
	b.must(err)
	_, err = b.pipe.Write(append(text, 0))
	b.must(err)
	select {
	case m, ok := <-b.answers:
		switch {
		case !ok:
			said, _ := os.ReadFile(b.log)
			b.tb.Fatalf("the browser has ended: %s", said)
		case m.Error != nil:
			b.tb.Fatalf("%s: %s", method, m.Error.Message)
		case out != nil:
			b.must(json.Unmarshal(m.Result, out, jsontext.AllowInvalidUTF8(true)))
		}
	case <-time.After(patience):
		b.tb.Fatalf("%s: no answer within %s", method, patience)
	}
}
