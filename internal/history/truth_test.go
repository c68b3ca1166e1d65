package history_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/changes"
	"github.com/kong-cloudtrail/relay/internal/history"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

// TestTruth compares the histories of all entities of a generated world with the truth:
// nothing that is called exact is wrong, nearly all that can be is exact, nothing is
// missing, and no secret shows. Kong's rows are late and come in any order, and its
// release may not filter.
func TestTruth(t *testing.T) {
	for _, order := range []kongtest.Order{kongtest.Filtered, kongtest.NewestFirst, kongtest.Unordered} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			kong, g := world(t, order)
			truth := map[string][]entities.Change{}
			for _, c := range kong.World().Changes() {
				truth[c.DAO+"/"+c.Key] = append(truth[c.DAO+"/"+c.Key], c)
			}
			read := reader(t, kong)
			j := judge{t: t}
			most := slices.SortedFunc(maps.Keys(truth), func(a, b string) int {
				return cmp.Or(cmp.Compare(len(truth[b]), len(truth[a])), strings.Compare(a, b))
			})
			for _, at := range most[:map[kongtest.Order]int{kongtest.Filtered: 30, kongtest.NewestFirst: 4, kongtest.Unordered: 4}[order]] {
				list := truth[at]
				dao, key, _ := strings.Cut(at, "/")
				r := read(dao, key, 0)
				j.entity(list, r.Events)
				out := lines(t, r)
				for _, s := range g.Secrets() {
					if strings.Contains(out, s.Value) {
						t.Fatalf("the secret of %s shows", s.Place)
					}
				}
			}
			t.Logf("%d of %d updates that nobody else came near are exact, %d of %d changes", j.exactAlone, j.alone, j.exact, j.all)
			if order == kongtest.Filtered && (j.alone < 50 || j.exactAlone*10 < j.alone*9) {
				t.Error("too few")
			}
		})
	}
}

func world(t *testing.T, order kongtest.Order) (*kongtest.Server, *entities.Generator) {
	t.Helper()
	kong := kongtest.New(kongtest.Options{
		SkipReads: true, PayloadExclude: []string{}, Order: order, Seed: 1,
		RowDelay: 100 * time.Millisecond, RowDelayMax: 1500 * time.Millisecond,
	})
	g := entities.NewGenerator(kong.World(), 7)
	g.LargeEvery = 500
	var end time.Time
	synctest.Test(t, func(t *testing.T) {
		for range 1500 {
			s := g.Next()
			<-time.After(s.Pause)
			for _, e := range s.Edits {
				send(t, kong, e.Method, e.Path, e.Body)
			}
		}
		<-time.After(time.Minute)
		end = time.Now()
	})
	kong.Update(func(o *kongtest.Options) { o.Now = func() time.Time { return end } })
	return kong, g
}

// judge compares histories with the truth.
type judge struct {
	t                             *testing.T
	all, exact, alone, exactAlone int
}

func (j *judge) entity(truth []entities.Change, events []history.Event) {
	j.t.Helper()
	byRequest := map[string][]history.Event{}
	for _, e := range events {
		byRequest[e.RequestID] = append(byRequest[e.RequestID], e)
	}
	for i, c := range truth {
		j.all++
		of := byRequest[c.RequestID]
		if len(of) != 1 {
			j.t.Fatalf("%s %s/%s is there %d times", c.Operation, c.DAO, c.Key, len(of))
		}
		e := of[0]
		alone := c.Operation == "update" && (i == 0 || c.At.Sub(truth[i-1].At) > 2*time.Second) && (i+1 == len(truth) || truth[i+1].At.Sub(c.At) > 2*time.Second)
		if alone {
			j.alone++
		}
		if e.History != changes.Exact {
			continue
		}
		j.exact++
		if alone {
			j.exactAlone++
		}
		if e.Operation != c.Operation {
			j.t.Fatalf("%s is called %s", c.Operation, e.Operation)
		}
		if err := c.Deny(fields(e.From), fields(e.To), "[secret "); err != nil {
			j.t.Fatalf("%s/%s: %v", c.DAO, c.Key, err)
		}
	}
}

func fields(of []changes.Field) (list []entities.Field) {
	for _, f := range of {
		list = append(list, entities.Field(f))
	}
	return list
}
