// Kafka for tests: one broker in memory, with the topics that are asked for.
//
//	kafka PORT PARTITIONS TOPIC...
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
)

func main() {
	port, partitions := number(1), number(2)
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.Ports(port),
		kfake.SeedTopics(int32(partitions), os.Args[3:]...),
	)
	if err != nil {
		panic(err)
	}
	defer cluster.Close()
	fmt.Println("ready", cluster.ListenAddrs())
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	<-ended
}

func number(i int) int {
	value, err := strconv.Atoi(os.Args[i])
	if err != nil {
		panic(err)
	}
	return value
}
