package lambdahost

import (
	"bytes"
	"fmt"

	"github.com/aws/aws-lambda-go/events"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// maxChain is how often the function invokes itself for one event. What is left then waits
// for the schedule. Lambda's own loop detection stops a function after about 16 invocations
// by itself.
const maxChain = 10

// task is what an event asks for.
type task struct {
	kind    audit.PassKind                   // the pass to make, unless url is set
	trigger *trigger.Body                    // for a tail that a trigger asks for; else nil
	chain   int                              // how often the function has invoked itself for this
	url     *events.LambdaFunctionURLRequest // a request to the function's URL
}

// continuation is the rest of a task, for which the function invokes itself when it runs out
// of time.
type continuation struct {
	Kind  audit.PassKind `json:"kind"`  // reconcile or tail
	Chain int            `json:"chain"` // 1 to maxChain
}

type selfInvocation struct {
	Continue continuation `json:"continue"`
}

// eventError is the error of an event that is not understood.
type eventError struct{ reason string }

func (e *eventError) Error() string {
	return e.reason + `: expected a schedule ({"schedule":true}, or an event of EventBridge or its Scheduler with detail-type "Scheduled Event"), ` +
		`a trigger ({"trigger":{"request_ids":["…"],"sent_at":"…"}}), or a request to the function's URL`
}

// parseEvent returns the task of an event. Its errors repeat nothing of the event.
func parseEvent(payload []byte) (task, error) {
	var probe struct {
		Schedule       *bool          `json:"schedule"`
		Source         string         `json:"source"`
		DetailType     string         `json:"detail-type"`
		Trigger        jsontext.Value `json:"trigger"`
		Continue       *continuation  `json:"continue"`
		RequestContext *struct {
			HTTP *struct{} `json:"http"`
		} `json:"requestContext"`
	}
	if !bytes.HasPrefix(bytes.TrimLeft(payload, " \t\r\n"), []byte("{")) {
		return task{}, &eventError{"the event is not a JSON object"}
	}
	if err := json.Unmarshal(payload, &probe); err != nil {
		return task{}, &eventError{"the relay does not know this kind of event"}
	}
	switch {
	// Lambda puts every part of a request to the URL into members of its own, so a request cannot
	// pass for another kind of event.
	case probe.RequestContext != nil && probe.RequestContext.HTTP != nil:
		var r events.LambdaFunctionURLRequest
		if err := json.Unmarshal(payload, &r); err != nil {
			return task{}, &eventError{"the request to the function's URL cannot be read"}
		}
		return task{url: &r}, nil
	case probe.Trigger != nil:
		b, err := trigger.ParseInvocation(payload)
		if err != nil {
			return task{}, &eventError{"the trigger cannot be read: " + err.Error()}
		}
		return task{kind: audit.Tail, trigger: &b}, nil
	case probe.Continue != nil:
		c := *probe.Continue
		if c.Kind != audit.Reconcile && c.Kind != audit.Tail || c.Chain < 1 || c.Chain > maxChain {
			return task{}, &eventError{fmt.Sprintf("the continuation is not a reconcile or a tail with a chain of 1 to %d", maxChain)}
		}
		return task{kind: c.Kind, chain: c.Chain}, nil
	case probe.Schedule != nil && *probe.Schedule,
		probe.DetailType == "Scheduled Event" && (probe.Source == "aws.events" || probe.Source == "aws.scheduler"):
		return task{kind: audit.Reconcile}, nil
	}
	return task{}, &eventError{"the relay does not know this kind of event"}
}
