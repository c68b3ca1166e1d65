package cloudtrail

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// timed notes when calls come in.
type timed struct {
	accepting
	mu    sync.Mutex
	times []time.Time
}

func (c *timed) Do(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.times = append(c.times, time.Now())
	c.mu.Unlock()
	return c.accepting.Do(r)
}

// usualRate is the default of the setting put-rate.
const usualRate = 92

func TestPutKeepsTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &timed{accepting: accepting{[]byte(`{"successful":[{"id":"e0"}]}`)}}
		s := newDestination(t, Options{Config: aws.Config{HTTPClient: client}, Rate: usualRate})
		start := time.Now()
		var workers sync.WaitGroup
		for range 16 {
			workers.Go(func() {
				for range 25 {
					if _, err := s.Put(t.Context(), entries(1)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		workers.Wait()
		took := time.Since(start)
		if want := time.Duration(400-burst) * time.Second / usualRate; took < want || took > want+50*time.Millisecond {
			t.Errorf("400 calls took %v, want %v", took, want)
		}
		for i := range client.times {
			if j := i + 100; j < len(client.times) && client.times[j].Sub(client.times[i]) <= time.Second {
				t.Fatalf("more than 100 calls in a second, from call %d on", i)
			}
		}
	})
}

// However many calls stand in line, an urgent one waits for those of two turns.
func TestUrgentPutGoesBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &timed{accepting: accepting{[]byte(`{"successful":[{"id":"e0"}]}`)}}
		s := newDestination(t, Options{Config: aws.Config{HTTPClient: client}, Rate: 1})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var workers sync.WaitGroup
		for range 16 {
			workers.Go(func() {
				for ctx.Err() == nil {
					_, _ = s.Put(ctx, entries(1)) // ends with ctx
				}
			})
		}
		for i := range 5 {
			time.Sleep(10*time.Second + time.Duration(i)*300*time.Millisecond)
			begin := time.Now()
			verdicts, err := s.Urgent().Put(ctx, entries(1))
			if took := time.Since(begin); err != nil || statuses(verdicts) != "A" || took > 2*time.Second {
				t.Errorf("%s after %s, %v", statuses(verdicts), took, err)
			}
		}
		cancel()
		workers.Wait()
		for i := range client.times {
			if j := i + burst + 1; j < len(client.times) && client.times[j].Sub(client.times[i]) < time.Second {
				t.Fatalf("more than the rate and its burst, from call %d on", i)
			}
		}
	})
}

func TestPutGivesUpItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &timed{accepting: accepting{[]byte(`{"successful":[{"id":"e0"}]}`)}}
		s := newDestination(t, Options{Config: aws.Config{HTTPClient: client}, Rate: 0.001})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range burst {
			if _, err := s.Put(ctx, entries(1)); err != nil {
				t.Fatal(err)
			}
		}
		verdicts, err := s.Put(ctx, entries(2))
		if err == nil || statuses(verdicts) != "UU" || verdicts[0].Code != "Canceled" || len(client.times) != burst {
			t.Errorf("%v, %v, %d calls", verdicts, err, len(client.times))
		}
	})
}
