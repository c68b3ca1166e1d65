package main

import (
	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
)

// faultDestination is what the suite needs of a destination. Faults have the words of
// CloudTrail Lake.
type faultDestination interface {
	Times(id string) int
	arrived() []arrival
	totals() arrivalTotals
	SetDown(down bool)
	SetFaults(f cloudtrailtest.Faults)
	Script(faults ...cloudtrailtest.Fault)
	SetCredentials(c ...cloudtrailtest.Credential)
}

// arrival is an event that a destination has accepted.
type arrival struct{ ID, Data string }

type arrivalTotals struct{ Distinct, Repeats, Lost int }

// lakeFaults is CloudTrail Lake.
type lakeFaults struct{ *cloudtrailtest.Server }

func (l lakeFaults) arrived() (list []arrival) {
	for _, e := range l.Events() {
		list = append(list, arrival{e.ID, e.Data})
	}
	return list
}

func (l lakeFaults) totals() arrivalTotals {
	c := l.Counts()
	return arrivalTotals{c.Distinct, c.Repeats, c.Lost}
}

// logsFaults is CloudWatch Logs, which refuses no single events but for their time.
type logsFaults struct{ *cloudwatchtest.Server }

func (l logsFaults) arrived() (list []arrival) {
	for _, e := range l.Events() {
		list = append(list, arrival{e.UID, e.Message})
	}
	return list
}

func (l logsFaults) totals() arrivalTotals {
	c := l.Counts()
	return arrivalTotals{c.Distinct, c.Repeats, c.Lost}
}

// logsCodes are the codes that CloudWatch Logs has in place of CloudTrail Lake's.
var logsCodes = map[string]string{"ChannelNotFound": "ResourceNotFoundException", "ValidationException": "InvalidParameterException"}

func logsCode(code string) string {
	if other := logsCodes[code]; other != "" {
		return other
	}
	return code
}

func (l logsFaults) SetFaults(f cloudtrailtest.Faults) {
	calls := map[string]float64{}
	for code, p := range f.Calls {
		calls[logsCode(code)] = p
	}
	l.Server.SetFaults(cloudwatchtest.Faults{
		Seed: f.Seed, Delay: f.Delay, Jitter: f.Jitter, Reset: f.Reset, LoseAnswer: f.LoseAnswer, Garbage: f.Garbage, Calls: calls, Down: f.Down,
	})
}

func (l logsFaults) Script(faults ...cloudtrailtest.Fault) {
	for _, f := range faults {
		l.Server.Script(cloudwatchtest.Fault{Delay: f.Delay, Reset: f.Reset, Code: logsCode(f.Code), LoseAnswer: f.LoseAnswer, Garbage: f.Garbage})
	}
}

func (l logsFaults) SetCredentials(list ...cloudtrailtest.Credential) {
	var keys []cloudwatchtest.Key
	for _, c := range list {
		keys = append(keys, cloudwatchtest.Key{ID: c.AccessKeyID, SessionToken: c.SessionToken, Expires: c.Expires})
	}
	l.SetKeys(keys...)
}

// onLogs returns the cases that CloudWatch Logs can have.
func onLogs(cases []faultCase) (list []faultCase) {
	for _, c := range cases {
		if c.lakeOnly {
			continue
		}
		c.name, c.logs = "logs: "+c.name, true
		list = append(list, c)
	}
	return list
}
