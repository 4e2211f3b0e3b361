// Package gen holds the four counters that keep truth apart. They are distinct
// types because mixing two of them compiles nowhere and corrupts everywhere.
package gen

// Revision is the version of a database row. It grows by one with every write
// of that row and is what ETag and If-Match carry.
type Revision int64

// ReportSeq grows with each report an agent makes about one instance; a report
// that is not newer than the stored one is stale and changes nothing.
type ReportSeq int64

// OwnerEpoch fences a VM: it rises only when an incarnation or the owner
// changes. A command or report under a lower epoch is refused everywhere.
type OwnerEpoch int64

// NodeEpoch is the incarnation of an agent: it rises each time the agent
// process starts, and an older connection of the same node is closed by it.
type NodeEpoch int64
