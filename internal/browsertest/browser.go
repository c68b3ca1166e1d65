// Package browsertest drives a headless Chromium, so that a test sees a page as a person
// does. It speaks the DevTools protocol over a pipe.
package browsertest

import (
	"bufio"
	"context"
	"fmt"
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

// Browser is a running Chromium.
type Browser struct {
	tb  testing.TB
	log string // file of what it says

	mu    sync.Mutex // of what is written, and of the fields below
	pipe  io.Writer
	last  int
	calls map[int]chan message
	pages map[string]*Page // by session
	gone  bool             // nothing is read any more
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
	b := &Browser{tb: tb, calls: map[int]chan message{}, pages: map[string]*Page{}}
	toBrowser, in, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, fromBrowser, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	b.pipe = in
	dir, err := os.MkdirTemp("", "browsertest-")
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(tb.Context()), "chromium", "--headless=new", "--remote-debugging-pipe", "--user-data-dir="+dir,
		"--no-sandbox", // which a container has not the rights for
		"--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check", "--disable-background-networking",
		"--disable-component-update", "--disable-extensions", "--disable-sync", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
	cmd.ExtraFiles = []*os.File{toBrowser, fromBrowser} // its descriptors 3 and 4
	b.log = filepath.Join(dir, "stderr")
	said, err := os.Create(b.log)
	if err != nil {
		tb.Fatal(err)
	}
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
	defer b.end()
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
		b.mu.Lock()
		answer, page := b.calls[m.ID], b.pages[m.SessionID]
		delete(b.calls, m.ID)
		b.mu.Unlock()
		switch {
		case answer != nil:
			answer <- m
		case page != nil && m.Method != "":
			page.event(m.Method, m.Params)
		}
	}
}

// end ends the calls that wait for an answer.
func (b *Browser) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = true
	for id, answer := range b.calls {
		close(answer)
		delete(b.calls, id)
	}
}

// ended says that the browser has ended, and what it said.
func (b *Browser) ended() error {
	text, err := os.ReadFile(b.log)
	if err != nil {
		return err
	}
	return fmt.Errorf("the browser has ended: %s", text)
}

// call makes a call, and decodes its result into out unless that is nil.
func (b *Browser) call(session, method string, params map[string]any, out any) error {
	answer, err := b.send(session, method, params)
	if err != nil {
		return err
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return b.ended()
		case m.Error != nil:
			return fmt.Errorf("%s: %s", method, m.Error.Message)
		case out == nil:
			return nil
		}
		return json.Unmarshal(m.Result, out, jsontext.AllowInvalidUTF8(true))
	case <-time.After(patience):
		return fmt.Errorf("%s: no answer within %s", method, patience)
	}
}

func (b *Browser) send(session, method string, params map[string]any) (chan message, error) {
	text, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return nil, b.ended()
	}
	b.last++
	text, err = json.Marshal(message{ID: b.last, SessionID: session, Method: method, Params: text})
	if err != nil {
		return nil, err
	}
	answer := make(chan message, 1)
	b.calls[b.last] = answer
	_, err = b.pipe.Write(append(text, 0))
	return answer, err
}
