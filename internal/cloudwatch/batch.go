package cloudwatch

// How much to put at once, so that as a rule it becomes one call. Put takes more,
// and divides it by the limits of a call.
const (
	// BatchEntries is the number of entries.
	BatchEntries = maxCallEvents
	// BatchBytes is their size as audit.Entry.Size has it: a call holds 1 MiB of
	// events, and an event takes about half as much again as its entry.
	BatchBytes = 600_000
	// FlightBytes is their size in all calls that are in flight. Three take what Kong
	// gives, and each keeps its body of a megabyte besides: with eight, the garbage
	// collector takes as much of the processor as all the rest.
	FlightBytes = 3 * BatchBytes
)
