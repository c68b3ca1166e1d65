package history

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/changes"
)

// maxShown is the length in bytes at which a value is cut for a person.
const maxShown = 160

// Colours of a terminal.
const (
	red, green, bold, dim, plain = "\x1b[31m", "\x1b[32m", "\x1b[1m", "\x1b[2m", "\x1b[0m"
)

// Print writes the report for a person, in colour if that is wanted.
func (r *Report) Print(w io.Writer, colour bool) error {
	p := &printer{colour: colour}
	for i := range r.Events {
		if i > 0 {
			p.line("", "")
		}
		p.event(&r.Events[i])
	}
	p.line("", "")
	if len(r.Keys) > 1 {
		p.line(dim, fmt.Sprintf("%d entities have this name, or had it: %s. Give an id to see one.", len(r.Keys), strings.Join(r.Keys, ", ")))
	}
	if r.Oldest > 0 {
		p.line(dim, "What was read of Kong's log begins at "+moment(r.Oldest)+".")
	}
	_, err := io.WriteString(w, p.String())
	return err
}

type printer struct {
	strings.Builder

	colour bool
}

func (p *printer) line(colour, text string) {
	if p.colour && colour != "" {
		text = colour + text + plain
	}
	p.WriteString(text + "\n")
}

func (p *printer) event(e *Event) {
	nobody := "anonymous"
	if e.Method == "" {
		nobody = "unknown"
	}
	head := []string{e.Time, clean(cmp.Or(e.UserName, e.UserID, nobody))}
	if e.SourceIP != "" {
		head = append(head, "from "+clean(e.SourceIP))
	}
	if e.RequestSource != "" {
		head = append(head, "by "+clean(e.RequestSource))
	}
	if e.Method != "" {
		head = append(head, clean(e.Method+" "+e.Path))
	}
	p.line(bold, strings.Join(head, "  "))
	p.line("", "  "+e.Operation+" "+e.Entity+"/"+clean(cmp.Or(e.Name, e.Key)))
	if e.History != changes.Exact {
		p.line(dim, "  "+string(e.History)+": "+e.Note)
	} else if e.Note != "" {
		p.line(dim, "  "+e.Note)
	}
	p.fields(e)
}

func (p *printer) fields(e *Event) {
	pairs := e.Pairs()
	for _, f := range pairs {
		if f.From != nil {
			p.line(red, "  - "+field(f.Name, f.From))
		}
		switch {
		case f.To == nil:
		case e.History == changes.Unavailable:
			p.line("", "    "+field(f.Name, f.To))
		default:
			p.line(green, "  + "+field(f.Name, f.To))
		}
	}
	if len(pairs) == 0 && e.Key != "" {
		p.line(dim, "  no field changed")
	}
}

func field(name string, full jsontext.Value) string {
	value := clean(digests.ReplaceAllString(string(full), "[secret $1]"))
	if len(value) > maxShown {
		value = strings.ToValidUTF8(value[:maxShown], "") + "… (" + strconv.Itoa(len(full)) + " bytes)"
	}
	return clean(name) + ": " + value
}

// digests matches the digests that replace secrets. Print shortens them to eight digits, which
// still tell two of them apart.
var digests = regexp.MustCompile(`\[secret ([0-9a-f]{8})[0-9a-f]*\]`)

// clean replaces what is not printable, such as a terminal's control sequences.
func clean(text string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return unicode.ReplacementChar
		}
		return c
	}, text)
}
