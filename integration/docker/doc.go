// Package docker holds tests against PostgreSQL in containers: what an
// application in a Compose file or a pod meets when its database starts later
// than it, restarts, or freezes. They use retrypg as an application does, by
// its driver name and a DSN.
//
// They need the build tag docker and an engine; "make test-docker" provides
// both. RETRYPG_TEST_IMAGE names the image.
package docker
