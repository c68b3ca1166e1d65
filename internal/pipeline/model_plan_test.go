package pipeline

import (
	"time"

	"pgregory.net/rapid"
)

// plan is a random schedule: a world, and what happens to it.
type plan struct {
	Sorts, Filters, Exclusive, Positional, OwnReads, SkipOwn bool
	PageSize, Workers, Batch, FlightBytes                    int
	MaxBytes                                                 int
	KongDelay, SinkDelay                                     time.Duration
	Rows                                                     int
	Seed                                                     uint64
	Steps                                                    []event
}

// event is one thing that happens, with the faults of the pass that it makes.
type event struct {
	Do     string
	N      int           // rows, or pages
	Spread int64         // seconds over which rows are spread
	Back   int64         // seconds that they lie back
	After  time.Duration // time that goes by, or until something happens

	RowsPerPage int // written while a page is read
	PurgeEvery  int // pages, 0: never
	PageFails   int // of a hundred
	Unresolved  int // of a hundred entries
	CallFails   int // of a hundred calls, before anything is accepted
	AnswerLost  int // of a hundred calls, after everything was accepted
	RecordFails int // of a hundred calls
	Refuses     bool
	Down        bool
	Settings    bool
	TailWanted  int // of a hundred pages
}

func drawPlan(t *rapid.T) plan {
	percent := rapid.SampledFrom([]int{0, 0, 0, 5, 30})
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) event {
		e := event{
			Do: rapid.SampledFrom([]string{
				"add", "add", "late", "ahead", "purge", "advance", "tail", "tail", "tail", "reconcile", "reconcile", "full", "window", "dry run",
				"deadline", "cancel", "empty", "steal", "restart", "resort",
			}).Draw(t, "do"),
			N:      rapid.IntRange(1, 40).Draw(t, "n"),
			Spread: rapid.SampledFrom([]int64{0, 0, 1, 10, 300, 7000}).Draw(t, "spread"),
			Back:   rapid.SampledFrom([]int64{1, 4, 20, 1000, 80_000}).Draw(t, "back"),
			After:  rapid.SampledFrom([]time.Duration{0, 100 * time.Millisecond, 3 * time.Second, 40 * time.Second, time.Hour, 23 * time.Hour}).Draw(t, "after"),
		}
		if rapid.Bool().Draw(t, "faults") {
			e.RowsPerPage = rapid.IntRange(0, 3).Draw(t, "rows per page")
			e.PurgeEvery = rapid.IntRange(0, 4).Draw(t, "purge every")
			e.PageFails = percent.Draw(t, "page fails")
			e.Unresolved = percent.Draw(t, "unresolved")
			e.CallFails = percent.Draw(t, "call fails")
			e.AnswerLost = percent.Draw(t, "answer lost")
			e.RecordFails = percent.Draw(t, "record fails")
			e.Refuses = rapid.IntRange(0, 9).Draw(t, "refuses") == 0
			e.Down = rapid.IntRange(0, 9).Draw(t, "down") == 0
			e.Settings = rapid.IntRange(0, 9).Draw(t, "settings") == 0
			e.TailWanted = percent.Draw(t, "tail wanted")
		}
		return e
	}), 3, 10).Draw(t, "steps")
	p := plan{
		Sorts: rapid.IntRange(0, 3).Draw(t, "sorts") > 0, Filters: rapid.IntRange(0, 2).Draw(t, "filters") > 0,
		Exclusive: rapid.Bool().Draw(t, "exclusive"), Positional: rapid.Bool().Draw(t, "positional"),
		OwnReads: rapid.Bool().Draw(t, "own reads"), SkipOwn: rapid.Bool().Draw(t, "skip own"),
		PageSize: rapid.SampledFrom([]int{1, 2, 3, 7, 50}).Draw(t, "page size"), Workers: rapid.SampledFrom([]int{1, 2, 8}).Draw(t, "workers"),
		Batch: rapid.SampledFrom([]int{1, 3, 100}).Draw(t, "batch"), FlightBytes: rapid.SampledFrom([]int{1, 3000, 1 << 20}).Draw(t, "flight"),
		MaxBytes:  rapid.SampledFrom([]int{0, 0, 700}).Draw(t, "max bytes"),
		KongDelay: rapid.SampledFrom([]time.Duration{0, 90 * time.Millisecond, 2 * time.Second}).Draw(t, "kong"),
		SinkDelay: rapid.SampledFrom([]time.Duration{0, 50 * time.Millisecond, 4 * time.Second}).Draw(t, "destination"),
		Rows:      rapid.IntRange(0, 80).Draw(t, "rows"), Seed: rapid.Uint64().Draw(t, "seed"), Steps: steps,
	}
	p.Filters = p.Filters && p.Sorts
	// Rows that are purged while offsets count rows in no order shift others past
	// the reader; no relay could tell. Releases without order name the last row.
	p.Positional = p.Positional && p.Sorts
	// Each read adds a row, and tails read between the pages: with small pages a log
	// that is newest first would grow as fast as it is read.
	p.OwnReads = p.OwnReads && p.PageSize > 7 && p.MaxBytes == 0
	return p
}
