// Package errs is the one error type of the product: a stable code for
// programs, a message for people, and the cause for the log.
//
// The message says what happened, to what, and what to do. It is shown to
// users, so it never holds SQL, a stack trace, a host path of the server or
// another tenant's name; the cause may, and goes to the log only. Exactly one
// function maps codes to HTTP (server) and one to exit codes (cli).
package errs

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Error is a failure with a meaning. Construct it with New.
type Error struct {
	Code    Code
	Message string
	// Fields points at the parts of the input that were refused.
	Fields []Field
	// Job is the id of the job that stands in the way, if one does.
	Job string
	// Blockers lists the objects that stand in the way, for people.
	Blockers []string
	// RetryAfter is how long to wait before the same is asked again; 0 when that is not
	// known.
	RetryAfter time.Duration

	cause error
}

// Field is one refused part of an input.
type Field struct {
	Code Code
	// Pointer is a JSON pointer (RFC 6901) into the input, or a parameter's name.
	Pointer string
	Message string
	// Limit is the bound that was exceeded, if there is one.
	Limit string
	// Got is what came, truncated and escaped.
	Got string
}

// New makes an error of a code with a message for people.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Because attaches the cause. The cause is for logs; users see the message.
func (e *Error) Because(cause error) *Error {
	e.cause = cause
	return e
}

// At adds a refused field and returns the error.
func (e *Error) At(f Field) *Error {
	if f.Code == "" {
		f.Code = e.Code
	}
	f.Got = Clip(f.Got)
	e.Fields = append(e.Fields, f)
	return e
}

// HeldBy names the job that stands in the way.
func (e *Error) HeldBy(job string) *Error {
	e.Job = job
	return e
}

// BlockedBy lists what stands in the way.
func (e *Error) BlockedBy(what ...string) *Error {
	e.Blockers = append(e.Blockers, what...)
	return e
}

// After tells how long to wait before the same is asked again.
func (e *Error) After(d time.Duration) *Error {
	e.RetryAfter = d
	return e
}

// Error gives code, message and cause on one line, for logs.
func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Message
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.cause }

// CodeOf gives the code of the outermost Error in err's chain, Internal for
// any other error, and the empty code for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}

// Is reports whether err carries the code.
func Is(err error, code Code) bool { return err != nil && CodeOf(err) == code }

// As gives the outermost Error of the chain; any other error becomes Internal
// with a message that reveals nothing and the original as its cause.
func As(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return New(Internal, "an internal error happened; the server's log has it under this request's id").Because(err)
}

// clipLen bounds what an error repeats of an input.
const clipLen = 64

// Clip truncates and escapes a piece of input so that it can be repeated in an
// error or a log line.
func Clip(s string) string {
	cut := s
	if len(cut) > clipLen {
		cut = cut[:clipLen] + "…"
	}
	q := strconv.QuoteToGraphic(cut)
	return q[1 : len(q)-1]
}
