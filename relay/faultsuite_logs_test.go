package main

import (
	"cmp"

	"github.com/kong-cloudtrail/relay/internal/awstest"
	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
)

// faultDestination is what the suite needs of a destination. Faults have the words of
// CloudTrail Lake.
type faultDestination interface {
	Times(id string) int
	Events() []awstest.Event
	Counts() awstest.Counts
	SetDown(down bool)
	SetFaults(f awstest.Faults)
	Script(faults ...awstest.Faults)
	SetCredentials(c ...awstest.Credential)
}

// logsFaults is CloudWatch Logs, which refuses no single events but for their time.
type logsFaults struct{ *cloudwatchtest.Server }

// logsCodes are the codes that CloudWatch Logs has in place of CloudTrail Lake's.
var logsCodes = map[string]string{"ChannelNotFound": "ResourceNotFoundException", "ValidationException": "InvalidParameterException"}

func (l logsFaults) SetFaults(f awstest.Faults) { l.Server.SetFaults(logsOf(f)) }

func (l logsFaults) Script(faults ...awstest.Faults) {
	for _, f := range faults {
		l.Server.Script(logsOf(f))
	}
}

// logsOf returns the faults that CloudWatch Logs can have, with its codes.
func logsOf(f awstest.Faults) awstest.Faults {
	calls := map[string]float64{}
	for code, p := range f.Calls {
		calls[cmp.Or(logsCodes[code], code)] = p
	}
	f.Calls, f.IDs = calls, nil
	return f
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
