package app

// Paths of the operations listener at which a relay answers the commands that need its
// ledger, where that is a file.
const (
	PathUndelivered = "/ledger/undelivered"
	PathOutages     = "/ledger/outages"
	PathVerify      = "/ledger/verify"
)

// KeyFile returns where a relay keeps the key for these paths while it runs: beside
// the ledger's file.
func KeyFile(ledgerFile string) string { return ledgerFile + ".key" }
