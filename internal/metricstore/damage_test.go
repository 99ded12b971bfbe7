package metricstore

const writerEnv = "VITRINE_TEST_WRITER_DIR"

func writeUntilKilled(string) {}
