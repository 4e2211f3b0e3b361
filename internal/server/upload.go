package server

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// The headers of uploads, with the meaning they have in "Resumable Uploads for
// HTTP" and in tus.
const (
	offsetHeader   = "Upload-Offset"
	lengthHeader   = "Upload-Length"
	completeHeader = "Upload-Complete"
)

func (s *Server) uploadRoutes() []Route {
	read, create := auth.Need{Resource: auth.Storage, Action: auth.Read}, auth.Need{Resource: auth.Storage, Action: auth.Create}
	const all, one = "/api/v1/images/{image}/uploads", "/api/v1/images/{image}/uploads/{upload}"
	return []Route{
		handle(Route{Method: "GET", Path: all, ID: "listImageUploads", Summary: "List your open uploads of an image", Need: read}, s.listUploads),
		handle(Route{Method: "POST", Path: all, ID: "createImageUpload", Summary: "Announce a file of an image, to be sent in parts", Need: create, Status: http.StatusCreated}, s.createUpload),
		raw(Route{Method: "GET", Path: one, ID: "getImageUpload", Summary: "Read how far your upload came; HEAD gives the headers alone", Need: read, reply: typeOf[api.ImageUpload]()}, s.getUpload),
		raw(Route{Method: "PATCH", Path: one, ID: "appendImageUpload", Summary: "Send the next part of a file; with its last byte it is looked into and becomes the image's", Need: create, stream: "the part's bytes", bytes: true, reply: typeOf[api.ImageUpload]()}, s.appendUpload),
		handle(Route{Method: "DELETE", Path: one, ID: "deleteImageUpload", Summary: "Give your upload up", Need: create, Status: http.StatusNoContent}, s.deleteUpload),
	}
}

func toUpload(u image.Upload) api.ImageUpload {
	return api.ImageUpload{
		Kind: "image_upload", ID: u.ID.String(), Image: u.ImageID.String(), File: string(u.Role), SizeBytes: api.Bytes(u.SizeBytes),
		SHA256: u.SHA256, OffsetBytes: api.Bytes(u.Offset), Server: u.Server, CreatedAt: u.CreatedAt.UTC(), ExpiresAt: u.ExpiresAt.UTC(),
	}
}

func (s *Server) listUploads(ctx context.Context, r *Request, _ none) (reply[api.List[api.ImageUpload]], error) {
	all, err := s.control.Uploads(ctx, r.Caller, r.Arg("image"))
	return list(all, "", toUpload), err
}

func (s *Server) createUpload(ctx context.Context, r *Request, b api.ImageUploadCreate) (reply[api.ImageUpload], error) {
	u, err := s.control.BeginUpload(ctx, r.Caller, r.Arg("image"), image.Role(b.File), int64(b.SizeBytes), b.SHA256)
	return reply[api.ImageUpload]{Body: toUpload(u)}, err
}

func (s *Server) deleteUpload(ctx context.Context, r *Request, _ none) (reply[none], error) {
	return reply[none]{}, s.control.EndUpload(ctx, r.Caller, r.Arg("image"), r.Arg("upload"))
}

func (s *Server) getUpload(w http.ResponseWriter, r *Request) error {
	u, err := s.control.Upload(r.Context(), r.Caller, r.Arg("image"), r.Arg("upload"))
	if err != nil {
		return err
	}
	standing(w, u, false)
	writeReply(w, Route{reply: typeOf[api.ImageUpload]()}, reply[api.ImageUpload]{Body: toUpload(u)})
	return nil
}

// standing tells in headers how far an upload came.
func standing(w http.ResponseWriter, u image.Upload, complete bool) {
	h := w.Header()
	h.Set(offsetHeader, strconv.FormatInt(u.Offset, 10))
	h.Set(lengthHeader, strconv.FormatInt(u.SizeBytes, 10))
	h.Set(completeHeader, map[bool]string{true: "?1", false: "?0"}[complete])
}

func (s *Server) appendUpload(w http.ResponseWriter, r *Request) error {
	part, err := readPart(r)
	if err != nil {
		return err
	}
	r.park() // the bytes come as slowly as they come
	readBy(w, clock.Deadline(uploadTimeout))
	body := &steady{r: r.Body, w: w}
	u, err := s.control.WriteUpload(r.Context(), r.Caller, r.Arg("image"), r.Arg("upload"), control.Piece{Part: part, Body: body, Break: body.end})
	complete := err == nil && u.Offset == u.SizeBytes
	if u.SizeBytes > 0 {
		standing(w, u, complete)
	}
	if err != nil {
		return err
	}
	readBy(w, time.Time{})
	doc := toUpload(u)
	doc.Complete = complete
	writeReply(w, Route{reply: typeOf[api.ImageUpload]()}, reply[api.ImageUpload]{Body: doc})
	return nil
}

// readPart reads what a part's headers say of it.
func readPart(r *Request) (image.Part, error) {
	p := image.Part{Length: r.ContentLength}
	at := r.Header.Get(offsetHeader)
	var err error
	if p.Offset, err = strconv.ParseInt(at, 10, 64); err != nil || p.Offset < 0 || strings.HasPrefix(at, "+") {
		return p, errs.New(errs.InvalidField, "%s is the number of the part's first byte, counted from 0", offsetHeader).
			At(errs.Field{Pointer: offsetHeader, Message: "is not a number of bytes", Got: at})
	}
	switch got := r.Header.Get(completeHeader); got {
	case "", "?0":
	case "?1":
		p.Last = true
	default:
		return p, errs.New(errs.InvalidField, "%s is ?1 with the last part of a file, and ?0 with any other", completeHeader).
			At(errs.Field{Pointer: completeHeader, Message: "is neither ?0 nor ?1", Got: got})
	}
	p.SHA256, err = digest(r.Header.Get("Digest"))
	return p, err
}
