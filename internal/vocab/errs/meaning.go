package errs

import (
	"maps"
	"slices"
)

// Meaning is what a code says, for people.
type Meaning struct {
	// What happened.
	What string
	// Do is what to do about it.
	Do string
}

var meanings = map[Code]Meaning{
	InvalidJSON:      {"The body is not the JSON that the request takes: it is malformed, has a key twice, or something after its end.", "The message names the place; mend the body."},
	InvalidYAML:      {"A file of documents is not the YAML that is taken: malformed, a field twice, an alias, a tag of its own.", "The message names file and line; mend it there."},
	TooLarge:         {"The body, or a part of it, is larger than is taken.", "Send less; images go by upload."},
	UnknownField:     {"A field that the document does not have. Misspelt ones are not passed over.", "The message says what was perhaps meant."},
	FieldNotWritable: {"A field that only the system sets, such as status or revision.", "Leave it out."},
	InvalidField:     {"A value that the field does not take.", "`errors` names the field, the limit, and what it got."},
	InvalidName:      {"A name that does not follow the grammar: 1 to 63 of a-z, 0-9 and hyphens, not at its ends.", "Choose another name."},
	InvalidID:        {"What should be an id is none.", "Take the id from a list."},
	InvalidSize:      {"What should be a size is none: whole bytes, or such as 512MiB, 2GiB.", "Write it so."},
	InvalidCursor:    {"A list was continued with a cursor that is not of this list, this order or this cluster.", "Begin the list anew."},
	InvalidFilter:    {"A parameter that the list does not have, or a value that it does not take.", "The message says what there is."},
	InvalidImage:     {"The file is not an image that may be used: damaged, of another format, or with references to other files.", "The message says what was found; convert it with qemu-img to plain qcow2 or raw."},
	OutOfRange:       {"A number beyond its limits.", "`errors` names the limit."},
	Unsupported:      {"What was asked for is not supported, by this version or by that part.", "Upgrade what the message names, or do without."},
	UnsupportedMedia: {"The body's Content-Type is not the one that is taken.", "Send application/json."},
	ArchiveUnsafe:    {"An archive has an entry that it may not have: a path, a link, a device, a name twice, content other than its manifest says, or no manifest.", "The message names the entry; export the appliance again where it comes from."},
	URLForbidden:     {"A URL leads where the servers may not be sent: it is not http or https, or its host has an address of this machine, of a private network, or of none.", "Take a public address; an operator allows private networks with `novacron server --import-networks`."},
	LengthMismatch:   {"A body does not lead to the length that was announced.", "Upload the file again; it may have changed meanwhile."},

	Unauthenticated: {"No credential, or one that is unknown, expired or revoked.", "Use a good token: `novacron token create`, `novacron context add`."},
	Forbidden:       {"The credential is good and its role may not do this.", "Ask an administrator."},

	NotFound:            {"There is no such object, or none that you may see.", "List what there is."},
	AlreadyExists:       {"An object of that name is there already.", "Choose another name, or use the one there is."},
	Conflict:            {"Something else stands against it; the message says what.", "Look, then decide."},
	VMBusy:              {"A job holds the VM, and one holds it at a time.", "Wait for the job that is named, or cancel it while it allows that."},
	InvalidState:        {"The object is in a state in which this cannot be done; both sides are named.", "Bring it into another state first."},
	InUse:               {"Something uses the object; `blockers` names it.", "Remove what is named first."},
	GuestAgent:          {"The agent in the guest is not there, does not answer, or refuses what it is asked; the message says which.", "`novacron vm guest` shows how it is. Install qemu-guest-agent in the guest, and have it started there; resume a paused VM."},
	Protected:           {"The object is protected against deletion.", "`novacron vm set NAME --protect=false`, then delete it."},
	RevisionMismatch:    {"The object was changed since the revision that the request names.", "Read it again, and decide again."},
	IdempotencyReuse:    {"The Idempotency-Key was used before, for another request.", "Use a key per request."},
	StaleEpoch:          {"A command or a report of an earlier incarnation came late and was refused.", "Nothing: this is the fence at work."},
	StaleAttempt:        {"A command of an earlier attempt came late and was refused.", "Nothing: the later attempt goes on."},
	NoNodeFits:          {"No node has what the VM needs; the reason is told per node.", "`novacron vm show` lists the reasons. Make room, add a node, or ask for less."},
	NotCancellable:      {"The job is past where it can be cancelled.", "Wait for its end."},
	ImageMismatch:       {"An image's content is not what its name promises.", "Import the image again."},
	ShrinkNotAllowed:    {"A disk does not become smaller: the guest's data would be cut.", "Make a new disk and copy what is needed."},
	NodeRemoved:         {"The node, or the one that had the VM's disks, is out of the cluster for good.", "Delete the VM; join the host anew as another node."},
	NodeQuarantined:     {"The node did what no agent does: it may be in other hands. No server speaks with it; its guests are left as they are.", "Look at its host. `novacron node release` ends it; or `novacron node remove --force`, once the host is off."},
	RecoveryHold:        {"The database knows less than the nodes: an older one was put back. What it concerns is held until an operator confirms the difference.", "`novacron recovery show` lists what differs, `novacron recovery confirm` ends the hold. Guests go on running meanwhile."},
	RangeNotSatisfiable: {"The part of a file that is asked for begins behind its end, which is named.", "Ask for less, or for the whole file."},
	OffsetMismatch:      {"A part of an upload does not begin where the upload stands; that place is named.", "Go on from there; `novacron image import` does so by itself."},
	WrongServer:         {"Another server has what this one was asked to go on with.", "Ask the server that is named."},

	NodeUnreachable: {"The node cannot be reached now.", "Look at its agent; what waits for it goes on by itself."},
	HostFailure:     {"A host lacks something or does not do what it should: a program, a right, a file.", "The message names it; `novacron doctor` on that host says more."},
	GuestFailure:    {"The guest, or what executes it, failed.", "`novacron vm logs` has its last words."},
	NoSpace:         {"A disk or memory is full.", "Free some, or add some."},
	Timeout:         {"It took too long.", "Try again; look at what is slow."},
	Cancelled:       {"It was cancelled, or the server stopped meanwhile.", "Ask again, if it is still wanted."},
	DBUnavailable:   {"The database is away, slow, read-only or full. Nothing was changed, or the message says that this is not known.", "It is retried; look at PostgreSQL."},
	RateLimited:     {"More requests than are taken from one account or address at once. Nothing was done.", "Wait as Retry-After says; make fewer at once. `server --help` has the limits."},
	NeedsAttention:  {"A job stopped half-way and waits for a person; what is left is named.", "`novacron job show`; remove what stands in the way, then `novacron job retry`."},
	Internal:        {"A fault of NovaCron.", "The server's log has it under the request's id; report it with `novacron support bundle`."},
}

// Meaning tells what a code means; zero for an unknown one.
func (c Code) Meaning() Meaning { return meanings[c] }

// Codes lists every code, in order.
func Codes() []Code { return slices.Sorted(maps.Keys(meanings)) }
