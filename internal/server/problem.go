package server

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// statusOf is the one place where codes become HTTP statuses.
var statusOf = map[errs.Code]int{
	errs.InvalidJSON:         http.StatusBadRequest,
	errs.InvalidYAML:         http.StatusUnprocessableEntity,
	errs.InvalidCursor:       http.StatusBadRequest,
	errs.InvalidFilter:       http.StatusBadRequest,
	errs.TooLarge:            http.StatusRequestEntityTooLarge,
	errs.UnsupportedMedia:    http.StatusUnsupportedMediaType,
	errs.UnknownField:        http.StatusUnprocessableEntity,
	errs.FieldNotWritable:    http.StatusUnprocessableEntity,
	errs.InvalidField:        http.StatusUnprocessableEntity,
	errs.InvalidName:         http.StatusUnprocessableEntity,
	errs.InvalidID:           http.StatusUnprocessableEntity,
	errs.InvalidSize:         http.StatusUnprocessableEntity,
	errs.InvalidImage:        http.StatusUnprocessableEntity,
	errs.ImageMismatch:       http.StatusUnprocessableEntity,
	errs.LengthMismatch:      http.StatusUnprocessableEntity,
	errs.ArchiveUnsafe:       http.StatusUnprocessableEntity,
	errs.URLForbidden:        http.StatusUnprocessableEntity,
	errs.OutOfRange:          http.StatusUnprocessableEntity,
	errs.Unsupported:         http.StatusUnprocessableEntity,
	errs.Unauthenticated:     http.StatusUnauthorized,
	errs.Forbidden:           http.StatusForbidden,
	errs.NotFound:            http.StatusNotFound,
	errs.AlreadyExists:       http.StatusConflict,
	errs.Conflict:            http.StatusConflict,
	errs.VMBusy:              http.StatusConflict,
	errs.InvalidState:        http.StatusConflict,
	errs.InUse:               http.StatusConflict,
	errs.GuestAgent:          http.StatusConflict,
	errs.Protected:           http.StatusConflict,
	errs.IdempotencyReuse:    http.StatusConflict,
	errs.StaleEpoch:          http.StatusConflict,
	errs.StaleAttempt:        http.StatusConflict,
	errs.NoNodeFits:          http.StatusConflict,
	errs.NotCancellable:      http.StatusConflict,
	errs.ShrinkNotAllowed:    http.StatusConflict,
	errs.NeedsAttention:      http.StatusConflict,
	errs.NodeRemoved:         http.StatusConflict,
	errs.NodeQuarantined:     http.StatusConflict,
	errs.Cancelled:           http.StatusConflict,
	errs.RecoveryHold:        http.StatusConflict,
	errs.RangeNotSatisfiable: http.StatusRequestedRangeNotSatisfiable,
	errs.OffsetMismatch:      http.StatusConflict,
	errs.WrongServer:         http.StatusMisdirectedRequest,
	errs.RevisionMismatch:    http.StatusPreconditionFailed,
	errs.RateLimited:         http.StatusTooManyRequests,
	errs.NodeUnreachable:     http.StatusServiceUnavailable,
	errs.DBUnavailable:       http.StatusServiceUnavailable,
	errs.Timeout:             http.StatusGatewayTimeout,
	errs.NoSpace:             http.StatusInsufficientStorage,
	errs.HostFailure:         http.StatusInternalServerError,
	errs.GuestFailure:        http.StatusInternalServerError,
	errs.Internal:            http.StatusInternalServerError,
}

// StatusOf is the HTTP status of a code.
func StatusOf(c errs.Code) int {
	if status := statusOf[c]; status != 0 {
		return status
	}
	return http.StatusInternalServerError
}

// problem makes the document of an error. Its cause stays behind.
func problem(err error, requestID string) *api.Error {
	e := errs.As(err)
	status := StatusOf(e.Code)
	p := &api.Error{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: e.Message,
		Code: string(e.Code), RequestID: requestID, Retryable: e.Code.Retryable(), Job: e.Job, Blockers: e.Blockers,
	}
	for _, f := range e.Fields {
		p.Errors = append(p.Errors, api.FieldError{Code: string(f.Code), Field: f.Pointer, Message: f.Message, Limit: f.Limit, Got: f.Got})
	}
	return p
}

// retryAfter tells when to try again, in whole seconds, where the error knows.
func retryAfter(w http.ResponseWriter, err error) {
	if after := errs.As(err).RetryAfter; after > 0 {
		w.Header().Set(retryHeader, strconv.FormatInt(int64((after+time.Second-1)/time.Second), 10))
	}
}

// retryHeader tells when to try again.
const retryHeader = "Retry-After"

func writeProblem(w http.ResponseWriter, p *api.Error) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	switch p.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		if w.Header().Get(retryHeader) == "" {
			w.Header().Set(retryHeader, "1")
		}
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="novacron"`)
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) //nolint:errchkjson // the client may be gone
}
