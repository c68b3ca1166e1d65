package boltledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

const brokenHint = "this is not a ledger, or a broken one: give another path, or move it away; " +
	"a new ledger costs one full read, and repeats what the old one had recorded"

func (b *Ledger) open() error {
	err := b.guarded("opening", func() (err error) {
		// The freelist is synced: bbolt would otherwise gather it at each start, and
		// panics where nobody can recover if a page is broken.
		b.db, err = bbolt.Open(b.path, 0o600, &bbolt.Options{Timeout: time.Second, FreelistType: bbolt.FreelistMapType})
		if err == nil {
			b.file.info, err = os.Stat(b.path)
		}
		return err
	})
	switch {
	case err == nil || audit.NeedsPerson(err):
		return err
	case errors.Is(err, bolterrors.ErrTimeout):
		return audit.SettingsErrorf("stop the other one, or give each a ledger of its own; several relays share one in Redis",
			"opening ledger %s: %w", b.path, audit.ErrLedgerInUse)
	case errors.As(err, new(*fs.PathError)), errors.As(err, new(*os.SyscallError)):
		return audit.NewSettingsError(err, "name a file with --ledger bolt:<file> whose directory exists and which the relay can write to")
	case errors.As(err, new(syscall.Errno)): // it cannot be locked or mapped
		return err
	}
	return audit.NewSettingsError(err, brokenHint)
}

func cutOff(size, want int64) error {
	return audit.SettingsErrorf(brokenHint, "the file was cut off: %d bytes instead of %d", size, want)
}

// checkFile returns an error if the path no longer names the file that is open, which would
// be gone with everything recorded since once the relay ends, or if the file was cut off.
func (b *Ledger) checkFile() error {
	info, err := os.Stat(b.path) //nolint:gosec // the path is a setting
	b.file.Lock()
	defer b.file.Unlock()
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist): // writing works all the same
		return nil
	case err != nil || !os.SameFile(info, b.file.info):
		return audit.SettingsErrorf("put the file back if it was moved; else restart the relay, which goes on with what is there, or begins a new ledger and repeats what the old one had recorded",
			"the file was removed or replaced while the relay has it open")
	case info.Size() < b.file.info.Size():
		return cutOff(info.Size(), b.file.info.Size())
	}
	b.file.info = info
	return nil
}

// broken returns the error of an earlier call that met a broken page.
func (b *Ledger) broken() error {
	b.file.Lock()
	defer b.file.Unlock()
	return b.file.broken
}

// guarded runs f, and turns a panic of bbolt, which does not expect broken files,
// and a fault in the memory that maps the file into an error.
func (b *Ledger) guarded(doing string, f func() error) (err error) {
	if err := b.broken(); err != nil {
		return b.wrap(doing, err)
	}
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if r := recover(); r != nil {
			cause := errors.New("the file is broken")
			if _, fault := r.(runtime.Error); !fault { // whose text says nothing to a person
				cause = fmt.Errorf("the file is broken: %v", r)
			}
			broken := audit.NewSettingsError(cause, brokenHint)
			b.file.Lock()
			b.file.broken = broken
			b.file.Unlock()
			err = b.wrap(doing, broken)
		}
	}()
	return b.wrap(doing, explainFileSystem(f()))
}

// explainFileSystem adds what to do about an error of the file system. No waiting ends
// it, and the entries that were accepted meanwhile could not be recorded.
func explainFileSystem(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return audit.NewSettingsError(err, "make room on the file system of the ledger's file, or raise the limit of its size")
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EIO), errors.Is(err, syscall.ESTALE):
		return audit.NewSettingsError(err, "look at the file system of the ledger's file, and at the kernel's log: it cannot be written to")
	}
	return err
}

// used reports whether a ledger holds outcomes, which another source or destination
// must not take for its own.
func used(tx *bbolt.Tx) bool {
	day, _ := tx.Bucket(daysBucket).Cursor().First()
	entry, _ := tx.Bucket(undeliveredBucket).Cursor().First()
	return day != nil || entry != nil
}

// claimFile makes the file the ledger of one source and one destination. Before it
// is used they may have been mistyped: another one takes it over, without its marks.
func claimFile(tx *bbolt.Tx, o Options) error {
	meta := tx.Bucket(metaBucket)
	const hint = "give each source and each destination a file of its own (--ledger bolt:<file>)"
	for _, name := range []struct {
		what, want string
		key        []byte
	}{{"destination", o.Destination, destinationKey}, {"source", o.Source, sourceKey}} {
		had := meta.Get(name.key)
		switch {
		case name.want == "" || string(had) == name.want:
			continue
		case had != nil && used(tx):
			return audit.SettingsErrorf(hint, "it is the ledger of the %s %s, not of %s", name.what, had, name.want)
		case had == nil && used(tx) && !o.Adopt:
			return audit.SettingsErrorf(hint+", or run once with --adopt (RELAY_ADOPT=true) if it was used with these",
				"it was used before, and does not say with which %s", name.what)
		}
		err := meta.Put(name.key, []byte(name.want))
		if had != nil {
			err = errors.Join(err, meta.Delete(marksKey), meta.Delete(marksSequenceKey))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
