package cloudtrailtest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The part of CloudTrail Lake's SQL that is understood, and nothing else:
//
//	SELECT item, … FROM <event data store id>
//	[WHERE column op literal AND …] [GROUP BY column, …] [HAVING COUNT(*) op n]
//	[ORDER BY item [ASC|DESC], …] [LIMIT n]
//
// An item is a column or COUNT(*), with AS and a name if wanted; op is one of
// = <> != < <= > >=, or IN ('…', …). Literals are strings in single quotes;
// those of a time have the form '2026-01-01 00:00:00'.

type column int

const (
	colUID column = iota
	colSource
	colTime
	colEventID
	colCount // COUNT(*)
)

var columnNames = map[string]column{
	"eventdata.uid": colUID, "eventdata.eventsource": colSource,
	"eventdata.eventtime": colTime, "eventid": colEventID,
}

// resultNames are the names that columns have in a result unless AS gives one.
var resultNames = map[column]string{colUID: "UID", colSource: "eventSource", colTime: "eventTime", colEventID: "eventID"}

const sqlTime = "2006-01-02 15:04:05"

type statement struct {
	items  []item
	store  string
	where  []condition
	group  []column
	having []condition
	order  []ordering
	limit  int // -1 is none
}

type item struct {
	column
	name string
}

type condition struct {
	column
	op     string // one of = <> < <= > >= IN
	values []string
	number int64 // a time as Unix seconds, or a count
}

type ordering struct {
	column
	descending bool
}

// parser is one pass over a statement. The first mistake is kept in err, and
// everything after it reads as the end.
type parser struct {
	rest  string
	token string // current one; "" at the end
	err   error
}

func parseSQL(sql string) (*statement, error) {
	p := &parser{rest: sql}
	p.advance()
	st := p.statement()
	if p.err == nil && p.token != "" {
		p.fail("end of statement")
	}
	if p.err == nil {
		p.err = st.check()
	}
	return st, p.err
}

func (p *parser) fail(expected string) {
	if p.err == nil {
		p.err = fmt.Errorf("expected %s, got %q", expected, p.token)
	}
	p.token, p.rest = "", ""
}

// advance reads the next token: a word, a number, a string with its quotes, or a sign.
func (p *parser) advance() {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	n := 0
	switch {
	case p.rest == "":
	case wordByte(p.rest[0]):
		for n < len(p.rest) && wordByte(p.rest[n]) {
			n++
		}
	case p.rest[0] == '\'':
		for n = 1; ; n++ {
			if n == len(p.rest) {
				p.token = ""
				p.fail("a closing quote")
				return
			}
			if p.rest[n] != '\'' {
				continue
			}
			if n+1 < len(p.rest) && p.rest[n+1] == '\'' { // '' is one quote
				n++
				continue
			}
			n++
			break
		}
	case strings.HasPrefix(p.rest, "<>"), strings.HasPrefix(p.rest, "!="),
		strings.HasPrefix(p.rest, "<="), strings.HasPrefix(p.rest, ">="):
		n = 2
	default:
		n = 1
	}
	p.token, p.rest = p.rest[:n], p.rest[n:]
}

// wordByte: the id of an event data store is a word, hyphens included.
func wordByte(c byte) bool { return alphanumeric(c) || c == '_' || c == '.' || c == '-' }

func (p *parser) is(word string) bool { return strings.EqualFold(p.token, word) }

// accept goes past the words if the first of them is there.
func (p *parser) accept(words ...string) bool {
	if !p.is(words[0]) {
		return false
	}
	for _, w := range words {
		p.expect(w)
	}
	return true
}

func (p *parser) expect(word string) {
	if !p.is(word) {
		p.fail(word)
		return
	}
	p.advance()
}

func (p *parser) word(what string) string {
	w := p.token
	if w == "" || !wordByte(w[0]) {
		p.fail(what)
		return ""
	}
	p.advance()
	return w
}

func (p *parser) number() int64 {
	n, err := strconv.ParseInt(p.token, 10, 64)
	if err != nil || n < 0 {
		p.fail("a number")
		return 0
	}
	p.advance()
	return n
}

func (p *parser) literal() string {
	if !strings.HasPrefix(p.token, "'") {
		p.fail("a string in single quotes")
		return ""
	}
	v := strings.ReplaceAll(p.token[1:len(p.token)-1], "''", "'")
	p.advance()
	return v
}

// list reads what item reads, with commas between.
func (p *parser) list(item func()) {
	for {
		item()
		if p.token != "," {
			return
		}
		p.advance()
	}
}

func (p *parser) column() column {
	c, ok := columnNames[strings.ToLower(p.token)]
	if !ok {
		p.fail("one of eventData.UID, eventData.eventSource, eventData.eventTime, eventID")
		return 0
	}
	p.advance()
	return c
}

func (p *parser) columnOrCount() column {
	if p.accept("COUNT", "(", "*", ")") {
		return colCount
	}
	return p.column()
}

func (p *parser) statement() *statement {
	st := &statement{limit: -1}
	p.expect("SELECT")
	p.list(func() {
		it := item{column: p.columnOrCount()}
		if it.name = resultNames[it.column]; it.column == colCount {
			it.name = "_col" + strconv.Itoa(len(st.items))
		}
		if p.accept("AS") {
			it.name = p.word("a name")
		}
		st.items = append(st.items, it)
	})
	p.expect("FROM")
	st.store = p.word("the id of an event data store")
	if p.accept("WHERE") {
		st.where = p.conditions(p.column)
	}
	if p.accept("GROUP", "BY") {
		p.list(func() { st.group = append(st.group, p.column()) })
	}
	if p.accept("HAVING") {
		st.having = p.conditions(p.columnOrCount)
	}
	if p.accept("ORDER", "BY") {
		p.list(func() { st.order = append(st.order, p.ordering(st.items)) })
	}
	if p.accept("LIMIT") {
		st.limit = int(min(p.number(), 1<<31-1))
	}
	return st
}

// ordering reads a column, COUNT(*), or the name that an item has.
func (p *parser) ordering(items []item) ordering {
	var o ordering
	i := slices.IndexFunc(items, func(it item) bool { return it.name != "" && p.is(it.name) })
	if i >= 0 {
		o.column = items[i].column
		p.advance()
	} else {
		o.column = p.columnOrCount()
	}
	if !p.accept("ASC") {
		o.descending = p.accept("DESC")
	}
	return o
}

func (p *parser) conditions(col func() column) []condition {
	var out []condition
	for {
		out = append(out, p.condition(col))
		if p.err != nil || !p.accept("AND") {
			return out
		}
	}
}

func (p *parser) condition(col func() column) condition {
	c := condition{column: col(), op: strings.ToUpper(p.token)}
	switch c.op {
	case "=", "<>", "<", "<=", ">", ">=":
		p.advance()
	case "!=":
		c.op = "<>"
		p.advance()
	case "IN":
		p.advance()
		if c.column == colTime || c.column == colCount {
			p.fail("another comparison")
			return c
		}
		p.expect("(")
		p.list(func() { c.values = append(c.values, p.literal()) })
		p.expect(")")
		return c
	default:
		p.fail("a comparison")
		return c
	}
	switch c.column {
	case colCount:
		c.number = p.number()
	case colTime:
		token := p.token
		t, err := time.Parse(sqlTime, p.literal())
		if p.err == nil && (err != nil || len(token) != len(sqlTime)+2) {
			p.token = token
			p.fail("a time of the form '2026-01-01 00:00:00'")
		}
		c.number = t.Unix()
	default:
		c.values = []string{p.literal()}
	}
	return c
}

// check finds what is well-formed and makes no sense.
func (st *statement) check() error {
	grouped := len(st.group) > 0
	for _, it := range st.items {
		grouped = grouped || it.column == colCount
	}
	if !grouped && len(st.having) == 0 {
		for _, o := range st.order {
			if o.column == colCount {
				return fmt.Errorf("ORDER BY COUNT(*) needs GROUP BY")
			}
		}
		return nil
	}
	in := func(c column) bool {
		return c == colCount || slices.Contains(st.group, c)
	}
	for _, it := range st.items {
		if !in(it.column) {
			return fmt.Errorf("column %s must appear in GROUP BY", it.name)
		}
	}
	for _, o := range st.order {
		if !in(o.column) {
			return fmt.Errorf("a column of ORDER BY must appear in GROUP BY")
		}
	}
	for _, h := range st.having {
		if !in(h.column) {
			return fmt.Errorf("a column of HAVING must appear in GROUP BY")
		}
	}
	return nil
}
