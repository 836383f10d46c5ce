package mail

type Time int64
