package app

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/announce"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/health"
)

// Status is the state of the relay, as the running relay or the ledger knows it. It holds
// no secret and no payload.
type Status struct {
	Verdict string `json:"verdict"` // for a person, one sentence
	Failing bool   `json:"failing"` // something needs attention
	Hint    string `json:"hint,omitempty"`

	From      string    `json:"from"` // relay or ledger: who says it
	At        time.Time `json:"at"`
	Version   string    `json:"version,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
	Names     Names     `json:"names"`

	DeliveredUpTo     time.Time `json:"delivered_up_to,omitzero"`
	ReconciledThrough time.Time `json:"reconciled_through,omitzero"`
	FullAt            time.Time `json:"full_reconcile_at,omitzero"`
	LastComplete      time.Time `json:"last_complete_pass_at,omitzero"`
	OldestUndelivered time.Time `json:"oldest_undelivered_at,omitzero"`
	FailingSince      time.Time `json:"passes_failing_since,omitzero"`
	Resumes           bool      `json:"reconcile_resumes,omitempty"`

	Dependencies []health.State `json:"dependencies,omitempty"`
	Passes       []PassStatus   `json:"passes,omitempty"` // newest first
	PassRunning  bool           `json:"pass_running,omitempty"`

	Dead        int               `json:"dead_letters"`
	Deferred    int               `json:"deferred"`
	Undelivered []UndeliveredKind `json:"undelivered,omitempty"`

	Waiting int                  `json:"announced_waiting"`
	Missing int                  `json:"announced_missing"`
	Lost    []audit.Announcement `json:"missing,omitempty"` // the first of them

	Warnings []string         `json:"warnings,omitempty"` // of what fails nothing yet
	Outages  []audit.Outage   `json:"outages,omitempty"`  // newest first
	Settings []config.InForce `json:"settings,omitempty"`
}

// PassStatus is a pass that has ended.
type PassStatus struct {
	Kind      string    `json:"kind"`
	EndedAt   time.Time `json:"ended_at"`
	Seconds   float64   `json:"seconds"`
	Pages     int       `json:"pages"`
	Read      int       `json:"read"`
	New       int       `json:"new"`
	Delivered int       `json:"delivered"`
	Err       string    `json:"error,omitempty"`
}

// UndeliveredKind counts the undelivered entries that share outcome and code.
type UndeliveredKind struct {
	Outcome string    `json:"outcome"`
	Code    string    `json:"code"`
	Reason  string    `json:"reason"` // of the oldest
	Count   int       `json:"count"`
	Oldest  time.Time `json:"oldest"`
}

const (
	maxShown       = 20   // missing ids and outages in a status
	maxUndelivered = 1000 // undelivered entries that are looked at for their reasons
)

// ShownOutages is how far back outages are shown, unless somebody asks for others.
const ShownOutages = 30 * 24 * time.Hour

// StopsDelivery reports whether nothing can be delivered during an outage.
func StopsDelivery(o *audit.Outage) bool {
	d := health.Dependency(o.Dependency)
	return d != health.Triggers && d != health.Recording
}

// LedgerStatus returns the status as the ledger knows it.
func (a *App) LedgerStatus(ctx context.Context) (Status, error) {
	now := time.Now()
	s := Status{From: "ledger", At: now.UTC(), Names: NamesOf(&a.Settings)}
	m, err := a.Store.Marks(ctx)
	if err != nil {
		return s, err
	}
	s.SetMarks(&m)
	counts, err := a.Store.UndeliveredCounts(ctx)
	if err != nil {
		return s, err
	}
	s.Dead, s.Deferred, s.OldestUndelivered = counts.Dead, counts.Deferred, counts.OldestDeferred
	waiting, missing, err := a.Announced(ctx, now)
	if err != nil {
		return s, err
	}
	s.Waiting, s.Missing, s.Lost = waiting, len(missing), missing[:min(len(missing), maxShown)]
	if err := a.AddDetails(ctx, &s); err != nil {
		return s, err
	}
	s.Judge()
	return s, nil
}

// Announced returns how many of the ids on the ledger's list are waited for, and those
// that are missing.
func (a *App) Announced(ctx context.Context, now time.Time) (waiting int, missing []audit.Announcement, err error) {
	list, err := a.Store.Announced(ctx)
	missing = slices.DeleteFunc(list, func(l audit.Announcement) bool { return !announce.IsMissing(now, l.At) })
	return len(list) - len(missing), missing, err
}

// SetMarks sets the times that marks say.
func (s *Status) SetMarks(m *audit.Marks) {
	s.DeliveredUpTo, s.ReconciledThrough, s.FullAt = UnixTime(m.Cursor), UnixTime(m.ReconciledThrough), UnixTime(m.FullAt)
	s.LastComplete, s.FailingSince, s.Resumes = UnixTime(m.Completed), UnixTime(m.FailedSince), m.Resume != nil
}

// AddDetails adds the reasons of undelivered entries, and the outages of the time that [ShownOutages] says.
func (a *App) AddDetails(ctx context.Context, s *Status) error {
	kinds, seen := map[[2]string]*UndeliveredKind{}, 0
	for u, err := range a.Store.UndeliveredEntries(ctx) {
		if err != nil && !audit.IsUnreadable(err) {
			return err
		}
		u = Explained(u, err)
		k := [2]string{u.Outcome.String(), u.Code}
		if kinds[k] == nil {
			kinds[k] = &UndeliveredKind{Outcome: k[0], Code: k[1], Reason: u.Reason, Oldest: u.Since}
		}
		kinds[k].Count++
		if u.Since.Before(kinds[k].Oldest) {
			kinds[k].Oldest, kinds[k].Reason = u.Since, u.Reason
		}
		if seen++; seen == maxUndelivered {
			break
		}
	}
	for _, k := range kinds {
		s.Undelivered = append(s.Undelivered, *k)
	}
	slices.SortFunc(s.Undelivered, func(a, b UndeliveredKind) int {
		return cmp.Or(b.Count-a.Count, strings.Compare(a.Outcome+a.Code, b.Outcome+b.Code))
	})
	outages, err := a.Store.Outages(ctx, s.At.Add(-ShownOutages))
	if err != nil {
		return err
	}
	slices.Reverse(outages)
	s.Outages = outages[:min(len(outages), maxShown)]
	return nil
}

// Judge sets the verdict from the other fields.
func (s *Status) Judge() {
	var failing []string
	s.Failing, s.Hint = false, ""
	for _, d := range s.Dependencies {
		if d.Status != health.Failing {
			continue
		}
		if s.Hint == "" {
			s.Hint = d.Hint
		}
		failing = append(failing, fmt.Sprintf("%s has been failing since %s: %s", d.Dependency, ShortTime(s.At, d.Since), d.Cause))
	}
	if s.From == "ledger" {
		for _, o := range s.Outages {
			if o.Lasts(s.At) {
				failing = append(failing, fmt.Sprintf("%s has been failing since %s: %s", o.Dependency, ShortTime(s.At, o.From), o.Cause))
			}
		}
		if len(failing) == 0 && !s.FailingSince.IsZero() {
			failing = append(failing, fmt.Sprintf("passes have been failing since %s", ShortTime(s.At, s.FailingSince)))
			s.Hint = "relay once makes a pass and says why it fails"
		}
	}
	upTo := s.upTo()
	var but []string
	if s.Dead > 0 {
		but = append(but, Plural(s.Dead, "dead letter"))
	}
	if s.Deferred > 0 {
		but = append(but, Plural(s.Deferred, "deferred entry"))
	}
	if s.Missing > 0 {
		but = append(but, Plural(s.Missing, "announced id")+" that Kong has not recorded")
	}
	if len(but) > 0 {
		upTo += ", but for " + strings.Join(but, ", ")
		if s.Hint == "" && s.Dead > 0 {
			s.Hint = "relay dead list shows them; retry or drop them"
		}
	}
	s.Failing = len(failing) > 0 || s.Dead > 0 || s.Missing > 0
	if len(failing) > 0 {
		s.Verdict = failing[0]
		switch n := len(failing) - 1; {
		case n == 1:
			name, _, _ := strings.Cut(failing[1], " ")
			s.Verdict += "; " + name + " fails as well"
		case n > 1:
			s.Verdict += fmt.Sprintf("; %d others fail as well", n)
		}
		s.Verdict += "; " + upTo
		return
	}
	s.Verdict = upTo
}

func (s *Status) upTo() string {
	ledgerFails := func(d health.State) bool { return d.Dependency == health.Ledger && d.Status == health.Failing }
	switch {
	case !s.DeliveredUpTo.IsZero():
		return "all that Kong recorded up to " + ShortTime(s.At, s.DeliveredUpTo) + " is delivered"
	case slices.ContainsFunc(s.Dependencies, ledgerFails):
		return "how far delivery has come is not known without the ledger"
	}
	return "nothing has been delivered yet"
}

// Names name Kong, ledger and destination for a person. They hold no secret.
type Names struct {
	Kong        string `json:"kong"`
	Ledger      string `json:"ledger"`
	Destination string `json:"destination"`
	Source      string `json:"source"`
}

// NamesOf returns the names for the settings, which accept no URL with a password.
func NamesOf(s *config.Settings) Names {
	n := Names{Kong: s.KongAdminAPI, Source: s.Source}
	if s.LedgerFile != "" {
		n.Ledger = "bolt:" + s.LedgerFile
	} else {
		n.Ledger = "redis at " + strings.Join(s.RedisAddrs, ",")
	}
	if label := destinations()[s.Destination].label; label != nil {
		n.Destination = label(s)
	}
	return n
}
