package control

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/image/inspect"
	"github.com/novacron/novacron/internal/engine/blob"
	"github.com/novacron/novacron/internal/store"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

const (
	// checkpoint is how many bytes may have to be sent again after a server died.
	checkpoint = 32 << 20
	// lastWord bounds what is recorded after a sender has gone.
	lastWord = 10 * time.Second
)

// Piece is a part of an upload on its way.
type Piece struct {
	image.Part
	Body io.Reader
	// Break makes a Read of Body that waits, and every later one, fail. It may be
	// called from anywhere, and again.
	Break func()
}

// Uploads lists the caller's open uploads of an image.
func (s *Service) Uploads(ctx context.Context, c Caller, ref string) ([]image.Upload, error) {
	i, err := s.Image(ctx, ref)
	if err != nil {
		return nil, err
	}
	return s.cfg.Store.Uploads(ctx, i.ID, c.Name)
}

// Upload gives one upload of the caller's. Another's is not there.
func (s *Service) Upload(ctx context.Context, c Caller, ref, upload string) (image.Upload, error) {
	i, err := s.Image(ctx, ref)
	if err != nil {
		return image.Upload{}, err
	}
	return s.cfg.Store.Upload(ctx, i.ID, c.Name, upload)
}

// BeginUpload records that a file of an image is to come. sum, unless empty, is
// the SHA-256 the sender promises. Of each file a principal has one upload.
func (s *Service) BeginUpload(ctx context.Context, c Caller, ref string, role image.Role, size int64, sum string) (image.Upload, error) {
	if err := image.ValidateUpload(role, size, sum); err != nil {
		return image.Upload{}, err
	}
	out, err := s.once(ctx, c, func(tx *store.Tx) (Accepted, error) {
		i, err := tx.ImageGet(ctx, s.cfg.Project, ref)
		if err != nil {
			return Accepted{}, err
		}
		if err := i.Awaits(role); err != nil {
			return Accepted{}, err
		}
		open, err := tx.Uploads(ctx, i.ID, c.Name)
		if err != nil {
			return Accepted{}, err
		}
		for _, u := range open {
			if u.Role == role {
				return Accepted{}, errs.New(errs.AlreadyExists, "you have an upload of the %s of image %q already: go on with it, or delete it", role, i.Name).BlockedBy(u.ID.String())
			}
		}
		u := image.Upload{ID: id.New(), ProjectID: i.ProjectID, ImageID: i.ID, Role: role, Principal: c.Name, SizeBytes: size, SHA256: sum}
		if err := tx.UploadInsert(ctx, u); err != nil {
			return Accepted{}, err
		}
		r := c.record("image.upload.begin", "image", i.ID, i.Name)
		r.ProjectID, r.Detail = &i.ProjectID, map[string]any{"role": string(role), "size_bytes": size, "sha256": sum}
		return Accepted{Object: u.ID}, tx.AuditInsert(ctx, r)
	})
	if err != nil {
		return image.Upload{}, err
	}
	return s.Upload(ctx, c, ref, out.Object.String())
}

// EndUpload gives an upload up: what arrived is removed.
func (s *Service) EndUpload(ctx context.Context, c Caller, ref, upload string) error {
	i, err := s.Image(ctx, ref)
	if err != nil {
		return err
	}
	u, err := s.cfg.Store.Upload(ctx, i.ID, c.Name, upload)
	if err != nil {
		return err
	}
	_, leave, err := s.uploads.enter(ctx, u.ID, func() {})
	if err != nil {
		return err
	}
	defer leave()
	err = s.change(ctx, func(tx *store.Tx) error {
		if err := tx.UploadDelete(ctx, u.ID); err != nil {
			return err
		}
		if err := tx.ImageTouch(ctx, i.ID); err != nil {
			return err
		}
		r := c.record("image.upload.end", "image", i.ID, i.Name)
		r.ProjectID, r.Detail = &i.ProjectID, map[string]any{"role": string(u.Role)}
		return tx.AuditInsert(ctx, r)
	})
	if err != nil {
		return err
	}
	_, err = s.cfg.Images.RemovePart(u.ID) // on another server the reconciler does
	return err
}

// WriteUpload takes a part of an upload, and with the last byte looks into the
// file and makes it the image's. It ends a connection that still sends the same
// upload: its client has come back over this one. The upload it gives says how
// far it came, whatever the error.
func (s *Service) WriteUpload(ctx context.Context, c Caller, ref, upload string, p Piece) (image.Upload, error) {
	i, err := s.Image(ctx, ref)
	if err != nil {
		return image.Upload{}, err
	}
	u, err := s.cfg.Store.Upload(ctx, i.ID, c.Name, upload)
	if err != nil {
		return u, err
	}
	if err := i.Awaits(u.Role); err != nil {
		return u, err
	}
	ctx, leave, err := s.uploads.enter(ctx, u.ID, p.Break)
	if err != nil {
		return u, err
	}
	defer leave()
	u, err = s.write(ctx, c, i, upload, p)
	if over := context.Cause(ctx); err != nil && errs.Is(over, errs.Conflict) {
		err = over // whatever broke off because of it
	}
	return u, err
}

// write is WriteUpload while nobody else writes.
func (s *Service) write(ctx context.Context, c Caller, i image.Image, upload string, p Piece) (image.Upload, error) {
	// where it stands now that nobody else writes
	u, err := s.cfg.Store.Upload(ctx, i.ID, c.Name, upload)
	if err != nil {
		return u, err
	}
	part, err := s.openPart(ctx, &u)
	if err != nil {
		return u, err
	}
	defer part.Close()
	if err := u.Admit(p.Part); err != nil {
		return u, err
	}
	if err := s.receive(ctx, &u, part, p); err != nil || u.Offset < u.SizeBytes {
		return u, err
	}
	// every byte is here: a sender that has gone does not undo that
	return u, s.finish(context.WithoutCancel(ctx), c, i, u, part, p.SHA256)
}

// openPart holds the upload's part where it stands. A part that this server, as
// the last one to write it, does not have is lost, and the upload begins again;
// one that another server has is refused.
func (s *Service) openPart(ctx context.Context, u *image.Upload) (*blob.Part, error) {
	part, err := s.cfg.Images.OpenPart(u.ID, u.Offset == 0)
	if err == nil {
		if err = part.Resume(u.Offset, u.HashState); err == nil {
			return part, nil
		}
		part.Close()
	}
	if !errs.Is(err, errs.NotFound) {
		return nil, err
	}
	if u.Server != s.cfg.Address {
		return nil, errs.New(errs.WrongServer, "what arrived of this upload lies on the server %s, and this one does not share its folder of images: send the rest there, or delete the upload and begin again", u.Server).BlockedBy(u.Server)
	}
	if part, err = s.cfg.Images.OpenPart(u.ID, true); err != nil {
		return nil, err
	}
	if err := s.goBack(ctx, u, part, image.Upload{}); err != nil {
		part.Close()
		return nil, err
	}
	return part, nil
}

// receive takes a part's bytes, and records how far it came now and then and at
// the end. A part that turns out too long or too short is taken back.
func (s *Service) receive(ctx context.Context, u *image.Upload, part *blob.Part, p Piece) error {
	began := *u
	for ended := false; !ended && u.Offset < u.SizeBytes; {
		var err error
		ended, err = part.Append(ctx, p.Body, min(checkpoint, u.SizeBytes-u.Offset))
		if kept := s.progress(ctx, u, part); kept != nil {
			return kept
		}
		if err != nil {
			return err
		}
	}
	at := u.Offset
	if at == u.SizeBytes {
		at += more(p.Body)
	}
	err := began.Ends(at, p.Last)
	if err == nil {
		return nil
	}
	if back := s.goBack(ctx, u, part, began); back != nil {
		return back
	}
	return err
}

// goBack lets an upload stand where it once stood.
func (s *Service) goBack(ctx context.Context, u *image.Upload, part *blob.Part, to image.Upload) error {
	if err := part.Resume(to.Offset, to.HashState); err != nil {
		return err
	}
	return s.progress(ctx, u, part)
}

// more tells, as a number, whether a body goes on.
func more(body io.Reader) int64 {
	n, _ := io.ReadFull(body, make([]byte, 1))
	return int64(n)
}

// progress makes what is there durable and records it, also for a sender that
// has gone.
func (s *Service) progress(ctx context.Context, u *image.Upload, part *blob.Part) error {
	if u.Offset == part.Offset && u.Server == s.cfg.Address {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
	defer cancel()
	state, err := part.State()
	if err != nil {
		return err
	}
	next := *u
	next.Offset, next.HashState, next.Server = part.Offset, state, s.cfg.Address
	// nobody waits for this: no event, and nothing to wake
	err = s.cfg.Store.InTx(ctx, func(tx *store.Tx) error { return tx.UploadProgress(ctx, next, u.Offset) })
	if err == nil {
		*u = next
	}
	return err
}

// finish looks into a file that is whole and makes it the image's. A file that is
// not what was promised, or not an image, is removed with its upload.
func (s *Service) finish(ctx context.Context, c Caller, i image.Image, u image.Upload, part *blob.Part, late string) error {
	sum := part.SHA256()
	err := u.Check(sum, late)
	if err == nil {
		var is inspect.Result
		if is, err = inspect.File(part.File(), u.SizeBytes, u.Role); err == nil {
			f := image.File{Role: u.Role, SHA256: sum, SizeBytes: u.SizeBytes, Format: is.Format, VirtualBytes: is.VirtualBytes}
			if err := s.keepFile(ctx, c, i.ID, f, part); err != nil {
				return err // it can be asked again
			}
			part.Discard()
			return nil
		}
	}
	gone := s.change(ctx, func(tx *store.Tx) error {
		if err := tx.UploadDelete(ctx, u.ID); err != nil {
			return err
		}
		return tx.ImageTouch(ctx, i.ID)
	})
	if gone != nil {
		return gone
	}
	part.Discard()
	return err
}

// uploads knows who sends which upload to this server.
type uploads struct {
	mu   sync.Mutex
	open map[id.ID]*sender
}

type sender struct {
	stop func()
	done chan struct{}
}

// overtaken is what a sender is told whose place another connection has taken.
func overtaken() error {
	return errs.New(errs.Conflict, "another connection goes on with this upload; this one is given up")
}

// enter makes the caller the upload's only sender here, by ending another. ctx
// ends, and stop is called, when another comes in turn.
func (w *uploads) enter(ctx context.Context, u id.ID, stop func()) (context.Context, func(), error) {
	ctx, end := context.WithCancelCause(ctx)
	cancel := func() { end(context.Canceled) }
	for {
		w.mu.Lock()
		other := w.open[u]
		if other == nil {
			mine := &sender{stop: func() { end(overtaken()) }, done: make(chan struct{})}
			w.open[u] = mine
			w.mu.Unlock()
			unhook := context.AfterFunc(ctx, stop)
			return ctx, func() {
				unhook()
				cancel()
				w.mu.Lock()
				delete(w.open, u)
				w.mu.Unlock()
				close(mine.done)
			}, nil
		}
		w.mu.Unlock()
		other.stop()
		select {
		case <-other.done:
		case <-ctx.Done():
			cancel()
			return ctx, nil, errs.New(errs.Cancelled, "the request ended while another connection was sending the upload").Because(ctx.Err())
		}
	}
}
