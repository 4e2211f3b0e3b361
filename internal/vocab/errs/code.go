package errs

// Code is a stable word for one kind of failure. Clients branch on it; it never
// changes its meaning. Codes are grouped by what the caller can do.
type Code string

// The caller's input is wrong; the same request never succeeds.
const (
	InvalidJSON      Code = "invalid_json"
	InvalidYAML      Code = "invalid_yaml"
	TooLarge         Code = "too_large"
	UnknownField     Code = "unknown_field"
	FieldNotWritable Code = "field_not_writable"
	InvalidField     Code = "invalid_field"
	InvalidName      Code = "invalid_name"
	InvalidID        Code = "invalid_id"
	InvalidSize      Code = "invalid_size"
	InvalidCursor    Code = "invalid_cursor"
	InvalidFilter    Code = "invalid_filter"
	InvalidImage     Code = "invalid_image"
	OutOfRange       Code = "out_of_range"
	Unsupported      Code = "unsupported"
	UnsupportedMedia Code = "unsupported_media_type"
	// LengthMismatch: a body does not lead to the length that was announced.
	LengthMismatch Code = "length_mismatch"
	// ArchiveUnsafe: an archive has an entry that no archive of its kind has.
	ArchiveUnsafe Code = "archive_unsafe_entry"
	// URLForbidden: a URL leads where the servers may not be sent.
	URLForbidden Code = "url_forbidden"
)

// The caller may not.
const (
	Unauthenticated Code = "unauthenticated"
	Forbidden       Code = "forbidden"
)

// The state of the world stands against it; another state, another answer.
const (
	NotFound      Code = "not_found"
	AlreadyExists Code = "already_exists"
	Conflict      Code = "conflict"
	VMBusy        Code = "vm_busy"
	InvalidState  Code = "invalid_state"
	InUse         Code = "in_use"
	// GuestAgent: the agent in the guest is not there, does not answer, or refuses.
	GuestAgent Code = "guest_agent"
	// Protected: the object is protected against deletion.
	Protected        Code = "protected"
	RevisionMismatch Code = "revision_mismatch"
	IdempotencyReuse Code = "idempotency_key_reused"
	StaleEpoch       Code = "stale_epoch"
	StaleAttempt     Code = "stale_attempt"
	NoNodeFits       Code = "no_node_fits"
	NotCancellable   Code = "not_cancellable"
	ImageMismatch    Code = "image_mismatch"
	ShrinkNotAllowed Code = "shrink_not_allowed"
	// NodeRemoved: the node, or the one that had the VM's disks, is out of the cluster for good.
	NodeRemoved Code = "node_removed"
	// NodeQuarantined: the node did what no agent does, and is not spoken with until an
	// operator has looked at it.
	NodeQuarantined Code = "node_quarantined"
	// RecoveryHold: an operator has to confirm first what an older database lacks.
	RecoveryHold Code = "recovery_hold"
	// RangeNotSatisfiable: a reading begins behind the end of what is read.
	RangeNotSatisfiable Code = "range_not_satisfiable"
	// OffsetMismatch: a part of an upload does not begin where the upload stands.
	OffsetMismatch Code = "offset_mismatch"
	// WrongServer: another server has what this one was asked to go on with.
	WrongServer Code = "wrong_server"
)

// Something is broken or away; trying again may help.
const (
	NodeUnreachable Code = "node_unreachable"
	HostFailure     Code = "host_failure"
	GuestFailure    Code = "guest_failure"
	NoSpace         Code = "no_space"
	Timeout         Code = "timeout"
	Cancelled       Code = "cancelled"
	DBUnavailable   Code = "db_unavailable"
	RateLimited     Code = "rate_limited"
	NeedsAttention  Code = "needs_attention"
	Internal        Code = "internal"
)

// Retryable tells whether the same request may succeed later without the
// caller changing it.
func (c Code) Retryable() bool {
	switch c {
	case NodeUnreachable, Timeout, DBUnavailable, RateLimited, VMBusy, NoNodeFits, NoSpace:
		return true
	default:
		return false
	}
}
