package setup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Dialog asks a person at a terminal.
type Dialog struct {
	in  *bufio.Reader
	out io.Writer
}

// NewDialog returns a dialog that writes questions to out and reads a line of in for each.
func NewDialog(in io.Reader, out io.Writer) *Dialog { return &Dialog{bufio.NewReader(in), out} }

// Ask returns the answer to a question, without blanks around it. An empty line
// stands for the default; without one it is asked again.
func (d *Dialog) Ask(question, def string) (string, error) {
	for {
		fmt.Fprint(d.out, question)
		if def != "" {
			fmt.Fprintf(d.out, " [%s]", def)
		}
		fmt.Fprint(d.out, ": ")
		line, err := d.in.ReadString('\n')
		if line = strings.TrimSpace(line); line != "" {
			return line, nil
		}
		if err != nil {
			fmt.Fprintln(d.out)
			return "", errors.New("the input ended before the question was answered")
		}
		if def != "" {
			return def, nil
		}
	}
}

// Questions asks for what a plan lacks.
func (d *Dialog) Questions(p *Plan) error {
	const admin = "KONG_ADMIN_API"
	if err := d.askFor(p, admin, "Kong's Admin API, as the relay reaches it", "http://localhost:8001"); err != nil {
		return err
	}
	if p.RBAC && !p.has("KONG_ADMIN_TOKEN") {
		answer, err := d.Ask("Does it ask for a token (RBAC)?", "yes")
		if err != nil {
			return err
		}
		p.RBAC = strings.HasPrefix(strings.ToLower(answer), "y")
	}
	if err := d.askDestination(p); err != nil {
		return err
	}
	if p.Variables["RELAY_LEDGER"] == "" && p.Variables["REDIS_HOST"] == "" {
		answer, err := d.Ask("Ledger: host:port of Redis or Valkey, or bolt:<file> for one relay without it", "localhost:6379")
		if err != nil {
			return err
		}
		if strings.HasPrefix(answer, "bolt:") {
			p.Variables["RELAY_LEDGER"] = answer
		} else {
			p.Variables["REDIS_HOST"] = answer
		}
	}
	if p.RelayURL != "" {
		return nil
	}
	var err error
	p.RelayURL, err = d.Ask("The relay, as Kong reaches it", "http://relay:8080")
	return err
}

func (d *Dialog) askFor(p *Plan, variable, question, def string) (err error) {
	if p.Variables[variable] == "" {
		p.Variables[variable], err = d.Ask(question, def)
	}
	return err
}

// askDestination asks where events go. One question tells the destinations apart by
// the form of the answer.
func (d *Dialog) askDestination(p *Plan) error {
	v := p.Variables
	if v["RELAY_DESTINATION"] == "" && v["RELAY_LOG_GROUP"] == "" && v["CHANNEL_ARN"] == "" {
		answer, err := d.Ask("Destination: a log group of CloudWatch Logs, the ARN of a CloudTrail Lake channel, or jsonl:<file>", "/kong/audit")
		if err != nil {
			return err
		}
		switch {
		case strings.HasPrefix(answer, "jsonl:"):
			v["RELAY_DESTINATION"] = answer
		case strings.HasPrefix(answer, "arn:") && strings.Contains(answer, ":cloudtrail:"):
			v["CHANNEL_ARN"] = answer
		default:
			v["RELAY_LOG_GROUP"] = answer
		}
	}
	if v["REGION"] == "" && v["AWS_REGION"] == "" && v["RELAY_LOG_GROUP"] != "" && !strings.HasPrefix(v["RELAY_LOG_GROUP"], "arn:") {
		return d.askFor(p, "REGION", "AWS Region of the log group", "")
	}
	return nil
}
