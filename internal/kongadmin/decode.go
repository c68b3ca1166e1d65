package kongadmin

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// pageReader reads one page: the envelope {"data":[…],"offset":…,"next":…}. Anything else
// is an error, because it could hide rows. Kong passes on whatever bytes a path held, so
// texts need not be UTF-8; those of the entries always are.
type pageReader struct {
	*jsontext.Decoder

	log     logName
	text    []byte         // of the page; nothing of it is kept
	valid   bool           // text is valid UTF-8
	date    time.Time      // Kong's clock, for rows without a usable timestamp
	latest  int64          // newest second that a row may have
	key     *rsa.PublicKey // checks the signatures of rows; nil: none
	scratch []byte
	kept    strings.Builder // texts of entries

	before *audit.Entry // the row before: the next one often has the same texts

	// Of the current row.
	unknown unknownFields
	rawTime []byte // request_timestamp as written
}

// newPageReader returns a reader of text, which must not change while it reads.
func newPageReader(text []byte, log logName, date time.Time, key *rsa.PublicKey) *pageReader {
	r := &pageReader{Decoder: newDecoder(text), log: log, text: text, valid: utf8.Valid(text), date: date, key: key, before: &audit.Entry{}}
	r.latest = max(date.Unix(), time.Now().Unix()) + int64(ahead/time.Second)
	return r
}

func newDecoder(text []byte) *jsontext.Decoder {
	return jsontext.NewDecoder(bytes.NewBuffer(text), jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
}

func (r *pageReader) decode() (audit.Page, error) {
	page, err := r.page()
	wrong, ok := errors.AsType[*notAPage](err)
	switch {
	case ok:
		return audit.Page{}, &notAPage{fmt.Sprintf("%s (%d bytes)", wrong.what, len(r.text))}
	case err != nil: // which may quote the body
		return audit.Page{}, &notAPage{fmt.Sprintf("%s (%d bytes)", malformed(r.text), len(r.text))}
	}
	return page, nil
}

func (r *pageReader) page() (audit.Page, error) {
	var (
		page audit.Page
		next string
		seen = map[string]bool{}
	)
	if r.PeekKind() != jsontext.KindBeginObject {
		if err := r.SkipValue(); err != nil {
			return page, err
		}
		return page, &notAPage{noData}
	}
	if _, err := r.ReadToken(); err != nil {
		return page, err
	}
	for r.PeekKind() != jsontext.KindEndObject {
		if err := r.member(&page, &next, seen); err != nil {
			return page, err
		}
	}
	if _, err := r.ReadToken(); err != nil {
		return page, err
	}
	if len(bytes.TrimLeft(r.text[r.InputOffset():], " \t\r\n")) > 0 {
		return page, errors.New("something follows the page")
	}
	if !seen["data"] {
		return page, &notAPage{noData}
	}
	if page.Offset == "" && next != "" { // there is more, but the envelope does not say where
		u, err := url.Parse(next)
		if err != nil || u.Query().Get("offset") == "" {
			return page, &notAPage{"answer has a next page but no offset for it"}
		}
		page.Offset = u.Query().Get("offset")
	}
	return page, nil
}

const (
	noData  = "answer is JSON without a list called data"
	notList = "answer is JSON in which data is not a list"
)

// malformed describes a text that is not JSON.
func malformed(text []byte) string {
	switch s := bytes.TrimSpace(text[:min(len(text), 512)]); {
	case len(s) == 0:
		return "answer is empty"
	case s[0] == '<':
		return "answer is HTML, not JSON"
	case s[0] == '{':
		return "answer is JSON that breaks off or is malformed"
	}
	return "answer is not JSON"
}

// value reads a value as it was written.
func (r *pageReader) value() ([]byte, error) {
	v, err := r.ReadValue()
	if err != nil {
		return nil, err
	}
	end := int(r.InputOffset())
	return r.text[end-len(v) : end], nil
}

// member reads one member of the envelope. seen are the names of those before.
func (r *pageReader) member(page *audit.Page, next *string, seen map[string]bool) error {
	raw, err := r.value()
	if err != nil {
		return err
	}
	name := string(r.unquoted(raw))
	switch name {
	case "data":
		err = r.rows(page)
	case "offset":
		page.Offset, err = r.token(name)
	case "next":
		*next, err = r.token(name)
	default:
		return r.SkipValue()
	}
	if err == nil && seen[name] {
		err = &notAPage{"answer is JSON in which " + name + " comes twice"}
	}
	seen[name] = true
	return err
}

// token reads the envelope's offset or next.
func (r *pageReader) token(name string) (string, error) {
	raw, err := r.value()
	if err != nil {
		return "", err
	}
	switch jsontext.Value(raw[:1]).Kind() {
	case jsontext.KindBeginObject, jsontext.KindBeginArray, jsontext.KindTrue, jsontext.KindFalse:
		return "", &notAPage{"answer is JSON in which " + name + " is no text"}
	default:
		return string(r.unquoted(raw)), nil
	}
}

func (r *pageReader) rows(page *audit.Page) error {
	switch r.PeekKind() {
	case jsontext.KindBeginArray:
	case jsontext.KindBeginObject:
		// Lua's JSON encoder writes an empty list as {} unless told otherwise.
		raw, err := r.value()
		if err == nil && len(bytes.Trim(raw, "{} \t\r\n")) > 0 {
			err = &notAPage{notList}
		}
		return err
	default:
		if err := r.SkipValue(); err != nil {
			return err
		}
		return &notAPage{notList}
	}
	if _, err := r.ReadToken(); err != nil {
		return err
	}
	for r.PeekKind() != jsontext.KindEndArray {
		if r.PeekKind() != jsontext.KindBeginObject {
			if err := r.SkipValue(); err != nil {
				return err
			}
			return &notAPage{fmt.Sprintf("row %d of data is not an object", len(page.Entries))}
		}
		if page.Entries == nil {
			// Rows of a log have much the same length, seldom less than 400 bytes.
			page.Entries = make([]audit.Entry, 0, min(1000, 1+len(r.text)/400))
		}
		page.Entries = append(page.Entries, audit.Entry{})
		e := &page.Entries[len(page.Entries)-1]
		if err := r.row(e); err != nil {
			return err
		}
		r.before = e
	}
	_, err := r.ReadToken()
	return err
}

// row reads one row. Every field may be null, missing or of another type than
// documented: a text of another type is kept as it was written, and a number that
// is not one is kept among the unknown fields. Of fields that come twice the last
// one counts.
func (r *pageReader) row(e *audit.Entry) error {
	e.TTL = audit.NoTTL
	if r.log == objectLog {
		e.Object = &audit.Object{}
	}
	r.unknown.reset()
	r.rawTime = null
	row, err := r.fields(func(name, raw []byte) {
		if r.log == objectLog {
			r.objectField(e, name, raw)
		} else {
			r.field(e, name, raw)
		}
	})
	if err != nil {
		return err
	}
	if r.key != nil {
		e.Verification = verifySignature(r.key, string(row))
	}
	// The identity is that of the row as Kong sent it.
	if r.log == objectLog {
		e.ID = audit.ObjectIdentity(e)
	} else {
		e.ID = audit.Identity(e)
	}
	r.timestamp(e)
	e.Unknown = r.unknown.object()
	if !r.valid {
		e.MakeValid()
	}
	e.Payload = pairSurrogates(e.Payload)
	if e.Object != nil {
		e.Object.Entity = pairSurrogates(e.Object.Entity)
	}
	return nil
}

// fields calls f with the name and the value of each field of an object, as written, and
// returns the object.
func (r *pageReader) fields(f func(name, raw []byte)) (object []byte, err error) {
	if _, err = r.ReadToken(); err != nil {
		return nil, err
	}
	begin := r.InputOffset() - 1
	for r.PeekKind() != jsontext.KindEndObject {
		name, err := r.value()
		if err != nil {
			return nil, err
		}
		raw, err := r.value()
		if err != nil {
			return nil, err
		}
		f(name, raw)
	}
	_, err = r.ReadToken()
	return r.text[begin:r.InputOffset()], err
}

// field takes one field of a row, both as written.
func (r *pageReader) field(e *audit.Entry, name, raw []byte) {
	switch key := r.unquoted(name); string(key) {
	case "request_id":
		e.RequestID = r.keep(raw)
	case "request_timestamp":
		e.Timestamp, _ = r.integer("request_timestamp", raw)
		r.rawTime = raw
	case "client_ip":
		e.ClientIP = r.keepOr(r.before.ClientIP, raw)
	case "method":
		e.Method = r.keepOr(r.before.Method, raw)
	case "path":
		e.Path = r.keep(raw)
	case "status":
		n, _ := r.integer("status", raw)
		e.Status = int(n)
	case "ttl":
		e.TTL = audit.NoTTL
		if n, ok := r.integer("ttl", raw); ok {
			e.TTL = max(n, 0) // below 0 it is overdue
		}
	case "workspace":
		e.Workspace = r.keepOr(r.before.Workspace, raw)
	case "payload":
		e.Payload = r.keep(raw)
		e.EmptyPayload = string(raw) == `""`
	case "removed_from_payload":
		e.RemovedFromPayload = r.keep(raw)
	case "signature":
		e.Signature = r.keep(raw)
	case "rbac_user_id":
		e.RBACUserID = r.keepOr(r.before.RBACUserID, raw)
	case "rbac_user_name":
		e.RBACUserName = r.keepOr(r.before.RBACUserName, raw)
	case "request_source":
		e.RequestSource = r.keepOr(r.before.RequestSource, raw)
	default:
		if !isNull(raw) || !r.unknown.empty() {
			r.unknown.set(string(name), string(key), string(raw))
		}
	}
}

// objectField takes one field of a row of /audit/objects, both as written. The entity is
// a JSON text, as a string or as it is.
func (r *pageReader) objectField(e *audit.Entry, name, raw []byte) {
	o := e.Object
	switch key := r.unquoted(name); string(key) {
	case "id":
		o.ID = r.keep(raw)
	case "dao_name":
		o.DAO = r.keep(raw)
	case "entity_key":
		o.Key = r.keep(raw)
	case "operation":
		o.Operation = r.keep(raw)
	case "entity":
		o.Entity = r.keep(raw)
	case "removed_from_entity":
		o.Removed = r.keep(raw)
	case "expire":
	default:
		r.field(e, name, raw)
	}
}
