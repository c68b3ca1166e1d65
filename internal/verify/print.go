package verify

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/kong-cloudtrail/relay/internal/app"
)

// printer formats a report for a person.
type printer struct{ strings.Builder }

func (p *printer) printf(format string, args ...any) { fmt.Fprintf(p, format, args...) }

// line writes a count, unless it is 0 and not always wanted.
func (p *printer) line(always bool, n int, what, note string) {
	if n > 0 || always {
		p.printf("  %8d  %s", n, what)
		if n > 0 && note != "" {
			p.printf(": %s", note)
		}
		p.printf("\n")
	}
}

// found writes a count like line, and the first ids below it.
func (p *printer) found(always bool, f Finding, what, note string) {
	p.line(always, f.Count, what, note)
	for _, id := range f.IDs[:min(len(f.IDs), maxPrinted)] {
		p.printf("            %s\n", id)
	}
	if more := f.Count - min(len(f.IDs), maxPrinted); more > 0 && f.Count > 0 {
		p.printf("            and %d more (--json names up to %d)\n", more, MaxIDs)
	}
}

// Print writes the report for a person.
func (r *Report) Print(w io.Writer) error {
	var p printer
	p.ledger(r)
	if r.Destination != nil {
		p.destination(r.Destination)
	} else {
		p.printf("The destination was not asked: standard output and pipes cannot be read, and CloudTrail Lake needs --event-data-store\n")
	}
	p.conclusion(r)
	if _, err := io.WriteString(w, p.String()); err != nil {
		return fmt.Errorf("printing the report: %w", err)
	}
	return nil
}

func (p *printer) ledger(r *Report) {
	p.printf("Kong holds %s from %s to %s (read %s in %.1f s)\n", app.Plural(r.Entries, "entry"), cmp.Or(r.Since, "the beginning"), r.Until, r.Order, r.Seconds)
	p.line(true, r.Delivered, "delivered", "")
	p.found(true, r.Missing, "missing", "Kong holds them, and the ledger does not know them")
	p.line(true, r.NotDue, "not due yet", "newer than the last pass")
	p.line(false, r.OnTheWay, "on the way", "the pass under way may still deliver them; verify again once it has ended")
	p.found(false, r.Dead, "dead", "rejected permanently; relay dead list shows why")
	p.found(false, r.Deferred, "deferred", "tried again by each pass")
	p.found(false, r.Unstored, "dead or deferred, and not kept", "the ledger has lost the stored entries; --repair reads them again")
	p.found(false, r.Unreadable, "dead or deferred, and unreadable", "the ledger's copies are broken; relay dead drop gives them up, and --repair then reads again what Kong still holds")
	p.found(false, r.Dropped, "dropped", "were dead letters, and someone gave them up")
	p.line(false, r.Own, "left out", "the relay's own reads")
	p.found(false, r.SignatureFailed, "with a signature that does not verify", "delivered, and marked")
	p.found(false, r.WithoutChanges, "without their changes", "Kong had not shown in time what the request changed; relay history may show it by now")
}

func (p *printer) conclusion(r *Report) {
	if n := r.DeadLetters + r.DeferredEntries; n > r.Dead.Count+r.Deferred.Count {
		p.printf("The ledger keeps %s, those of other times included\n", app.Plural(n, "undelivered entry"))
	}
	if m := r.Repaired; m != nil {
		p.printf("Repaired: %d delivered, %d dead, %d deferred, %d failed\n", m.Delivered, m.Dead, m.Deferred, m.Failed)
	}
	switch {
	case r.Repaired != nil && r.OK:
		p.printf("No difference is left\n")
	case r.OK && r.Entries == 0 && r.CompleteThrough == "":
		p.printf("No difference, but Kong shows no entry at all, which proves nothing: look at audit_log in kong.conf, and at KONG_ADMIN_API\n")
	case r.OK:
		p.printf("No difference; complete through %s\n", cmp.Or(r.CompleteThrough, "-"))
	default:
		p.printf("DIFFERENCE; complete through %s only\n", cmp.Or(r.CompleteThrough, "-"))
		if r.Repaired == nil && r.differs() {
			p.printf("--repair puts what is missing\n")
		}
		if n := r.waiting(); n > 0 {
			p.printf("%s not delivered, since %s\n", app.Plural(n, "entry"), r.Failing)
		}
		if n := r.undelivered(); n > 0 {
			p.printf("%s not delivered: relay dead retry puts them again, relay dead drop --reason gives them up\n", app.Plural(n, "entry"))
		}
	}
}

func (p *printer) destination(d *DestinationReport) {
	p.printf("%s\n", strings.ToUpper(d.Name[:1])+d.Name[1:])
	p.line(true, d.Confirmed, "confirmed", "")
	p.found(true, d.Missing, "missing", "delivered according to the ledger, and not there")
	p.line(true, d.NotDue, "not due yet", "delivered, and too young to be shown there")
	p.found(false, d.Repeated, "repeated", "there more than once, with "+app.Plural(d.Extra, "event")+" too many")
	p.line(false, d.Gone, "not in Kong's log", "the ledger knows them; Kong has deleted them, or wrote them just now")
	p.found(false, d.Unknown, "unknown", "neither Kong nor the ledger knows them")
	p.line(false, d.Unreadable, "unreadable", "lines that are not events or are torn, and archives that are broken")
}
