package main

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/awstest"
	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// kongFaults befall the log that is read.
func kongFaults() []faultCase {
	return []faultCase{
		{name: "Kong slow", entries: 1500, anyWay: true, play: func(f *faultRun) {
			f.chances(kongtest.Chance{P: 0.5, Fault: kongtest.Fault{Wait: 300 * time.Millisecond}}, kongtest.Chance{P: 0.3, Fault: kongtest.Fault{Pause: 30 * time.Millisecond}})
			f.up()
			f.await(f.some(1))
			f.chances()
		}},
		{name: "Kong answers 500 for a while", entries: 1500, anyWay: true, play: func(f *faultRun) {
			f.up()
			f.await(f.some(3))
			f.chances(kongtest.Chance{P: 0.9, Fault: kongtest.Fault{Status: 500}}, kongtest.Chance{P: 0.5, Fault: kongtest.Fault{Reset: true}})
			f.pause(3 * time.Second)
			f.more(100, f.now())
			f.check("while it fails")
			f.chances()
		}},
		{name: "Kong truncates pages", entries: 2000, anyWay: true, play: func(f *faultRun) {
			f.chances(kongtest.Chance{P: 0.3, Fault: kongtest.Fault{Truncate: true}})
			f.up()
			f.await(f.some(1))
			f.chances()
		}},
		{name: "Kong reorders pages", entries: 2000, anyWay: true, play: func(f *faultRun) {
			f.chances(kongtest.Chance{P: 0.3, Fault: kongtest.Fault{Reorder: true}})
			f.up()
			f.await(f.some(1))
			f.more(200, f.now())
			f.await(100)
			f.chances()
		}},
		{name: "late and back-dated rows", entries: 1500, anyWay: true, full: true, play: func(f *faultRun) {
			r := f.up()
			for range 6 {
				f.pause(time.Duration(f.random.IntN(400)) * time.Millisecond)
				back := []time.Duration{0, 2 * time.Second, time.Minute, 4 * time.Minute, 3 * time.Hour, 20 * 24 * time.Hour}
				f.more(1+f.random.IntN(60), f.now().Add(-back[f.random.IntN(len(back))]))
				f.notify(r)
				f.check("rows inserted")
			}
		}},
		{name: "clocks of two control planes differ", entries: 1500, anyWay: true, kong: kongtest.Options{
			Nodes: []kongtest.Node{{Hostname: "a", Skew: -90 * time.Second}, {Hostname: "b", Skew: 90 * time.Second}},
		}, play: func(f *faultRun) {
			r := f.up()
			f.await(f.c.entries)
			for range 6 {
				skew := time.Duration(f.random.IntN(2)*180-90) * time.Second
				f.more(1+f.random.IntN(40), f.now().Add(skew))
				f.notify(r)
				f.pause(200 * time.Millisecond)
			}
			f.check("rows of both")
		}},
		{name: "rows purged during a walk", entries: 2000, anyWay: true, purged: true, play: func(f *faultRun) {
			var pages atomic.Int64
			oldest := f.order[:f.c.entries/2]
			f.kong.Update(func(o *kongtest.Options) {
				o.Latency = 30 * time.Millisecond
				o.OnPage = func(kongtest.Request) kongtest.Fault {
					n := int(pages.Add(1)) * 50
					if n < len(oldest) {
						f.kong.Delete(oldest[n-50 : n]...)
					}
					return kongtest.Fault{}
				}
			})
			f.up()
			f.await(f.some(3))
			f.check("while rows go")
			f.kong.Update(func(o *kongtest.Options) { o.OnPage = nil })
		}, full: true},
		{name: "Kong's clock jumps ahead and back", entries: 1500, anyWay: true, play: func(f *faultRun) {
			r := f.up()
			f.await(f.some(3))
			f.jump(48 * time.Hour)
			f.more(50, f.now())
			f.term(r)
			r = f.up()
			f.notify(r, f.order[len(f.order)-1])
			f.await(len(f.rows))
			f.check("ahead")
			f.jump(0)
			f.more(50, f.now())
			f.notify(r, f.order[len(f.order)-1])
		}},
		{name: "Kong's clock jumps back", entries: 1500, anyWay: true, play: func(f *faultRun) {
			r := f.up()
			f.await(f.c.entries)
			f.jump(-3 * time.Hour)
			f.more(50, f.now())
			f.notify(r, f.order[len(f.order)-1])
			f.pause(time.Second)
			f.check("back")
			f.jump(0)
		}, full: true},
	}
}

// chances are what happens to pages from now on.
func (f *faultRun) chances(c ...kongtest.Chance) {
	f.kong.Update(func(o *kongtest.Options) { o.Chances = c })
}

// trailFaults befall the destination.
func trailFaults() []faultCase {
	return []faultCase{
		{name: "AWS answers 500", entries: 2000, anyWay: true, play: func(f *faultRun) {
			f.during(cloudtrailtest.Faults{Calls: map[string]float64{"InternalFailure": 0.3, "ServiceUnavailable": 0.2}})
		}},
		{name: "AWS throttles", entries: 2000, anyWay: true, play: func(f *faultRun) {
			f.during(cloudtrailtest.Faults{Calls: map[string]float64{"ThrottlingException": 0.5}, Events: map[string]float64{"Throttling": 0.1}})
		}},
		{name: "AWS refuses some events", entries: 1500, anyWay: true, lakeOnly: true, play: func(f *faultRun) {
			f.during(cloudtrailtest.Faults{Omit: 0.05, Events: map[string]float64{"InternalFailure": 0.1, "InvalidData": 0.02, "FieldTooLong": 0.02}})
		}},
		{name: "AWS refuses a whole call for one event", entries: 600, play: func(f *faultRun) {
			f.dest.Script(slices.Repeat([]cloudtrailtest.Faults{{Calls: map[string]float64{"ValidationException": 1}}}, 1+f.random.IntN(5))...)
			f.during(cloudtrailtest.Faults{})
		}},
		{name: "AWS fails for some events until they are deferred", entries: 800, lakeOnly: true, env: []string{"RELAY_RETRY_FOR=1s"}, play: func(f *faultRun) {
			ids := map[string]string{}
			for range 20 {
				ids[f.order[f.random.IntN(len(f.order))]] = "InternalFailure"
			}
			f.during(cloudtrailtest.Faults{IDs: ids})
			f.eventually(patient, "deferred entries", func() bool {
				f.check("while they fail")
				return len(f.undelivered) == len(ids)
			})
		}},
		{name: "answers of AWS lost", entries: 2000, anyWay: true, play: func(f *faultRun) {
			garbage := 1 + f.random.IntN(3)
			f.dest.Script(slices.Repeat([]cloudtrailtest.Faults{{Garbage: 1}}, garbage)...)
			f.during(cloudtrailtest.Faults{LoseAnswer: 0.3, Reset: 0.1})
			f.allowed += f.batch() * (garbage + f.dest.Counts().Lost)
		}},
		{name: "AWS out for seconds", entries: 2500, anyWay: true, play: func(f *faultRun) {
			f.up()
			f.await(f.some(2))
			f.dest.SetDown(true)
			f.more(100, f.now())
			f.notify(f.relays[0])
			f.pause(f.outage())
			f.check("while it is out")
			f.dest.SetDown(false)
		}},
		{name: "AWS out for longer than it is retried", entries: 2000, env: []string{"RELAY_RETRY_FOR=1s"}, anyWay: true, play: func(f *faultRun) {
			f.up()
			f.await(f.some(2))
			f.dest.SetDown(true)
			f.pause(6 * time.Second)
			f.check("while it is out")
			if len(f.undelivered) > 0 {
				f.t.Errorf("%d entries were made a dead letter for an outage", len(f.undelivered))
			}
			f.dest.SetDown(false)
		}},
		{name: "credentials expire and are renewed", entries: 2000, play: credentialsExpire},
		{name: "a channel that is not there for a while", entries: 1500, play: func(f *faultRun) {
			f.up()
			f.await(f.some(2))
			f.dest.SetFaults(cloudtrailtest.Faults{Calls: map[string]float64{"ChannelNotFound": 1}})
			f.more(50, f.now())
			f.pause(3 * time.Second)
			f.check("while it is gone")
			if len(f.undelivered) > 0 {
				f.t.Errorf("%d entries were made a dead letter for a setting", len(f.undelivered))
			}
			f.dest.SetFaults(f.standing(cloudtrailtest.Faults{}))
		}},
	}
}

// outage is how long the destination is away.
func (f *faultRun) outage() time.Duration {
	if *faultsLong {
		return time.Duration(5+f.random.IntN(10)) * time.Second
	}
	return 3 * time.Second
}

// standing adds to faults what every case has.
func (f *faultRun) standing(faults cloudtrailtest.Faults) cloudtrailtest.Faults {
	faults.Seed, faults.Delay = f.c.trail.Faults.Seed+f.random.Uint64(), 60*time.Millisecond
	return faults
}

// during runs a relay over most of the log while the destination has faults.
func (f *faultRun) during(faults cloudtrailtest.Faults) {
	f.dest.SetFaults(f.standing(faults))
	r := f.up()
	f.await(f.c.entries / 2)
	f.more(50, f.now())
	f.notify(r)
	f.check("while it fails")
	f.await(f.c.entries / 4)
	f.check("later")
	f.dest.SetFaults(f.standing(cloudtrailtest.Faults{IDs: faults.IDs}))
}

// credentialsExpire has the relay take its credentials from where a container
// finds them; AWS refuses the old ones a while before there are new ones.
func credentialsExpire(f *faultRun) {
	type answer struct {
		AccessKeyID     string `json:"AccessKeyId"`
		SecretAccessKey string
		Token           string
		Expiration      time.Time
	}
	var now atomic.Pointer[awstest.Credential]
	give := func(key string) awstest.Credential {
		c := awstest.Credential{AccessKeyID: key, SecretAccessKey: "secret of " + key, SessionToken: "session of " + key}
		now.Store(&c)
		return c
	}
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c := now.Load()
		w.Header().Set("Content-Type", "application/json")
		_ = json.MarshalWrite(w, answer{c.AccessKeyID, c.SecretAccessKey, c.SessionToken, time.Now().Add(time.Hour)})
	}))
	f.t.Cleanup(metadata.Close)
	f.env = append(slices.DeleteFunc(f.env, func(kv string) bool {
		return kv == "AWS_ACCESS_KEY_ID="+cloudtrailtest.AccessKeyID || kv == "AWS_SECRET_ACCESS_KEY="+cloudtrailtest.SecretAccessKey
	}), "AWS_CONTAINER_CREDENTIALS_FULL_URI="+metadata.URL)
	f.dest.SetCredentials(give("AKIAFIRST"))
	f.up()
	f.await(f.some(2))
	old := *now.Load()
	old.Expires = time.Now()
	f.dest.SetCredentials(old)
	f.more(50, f.now())
	f.pause(time.Duration(500+f.random.IntN(2500)) * time.Millisecond)
	f.check("while they are expired")
	if len(f.undelivered) > 0 {
		f.t.Errorf("%d entries were made a dead letter for credentials", len(f.undelivered))
	}
	f.dest.SetCredentials(give("AKIASECOND"))
}
