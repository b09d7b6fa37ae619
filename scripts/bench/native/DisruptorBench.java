import com.lmax.disruptor.BatchEventProcessor;
import com.lmax.disruptor.BlockingWaitStrategy;
import com.lmax.disruptor.BusySpinWaitStrategy;
import com.lmax.disruptor.EventHandler;
import com.lmax.disruptor.RingBuffer;
import com.lmax.disruptor.Sequence;
import com.lmax.disruptor.SequenceBarrier;
import com.lmax.disruptor.WaitStrategy;
import com.lmax.disruptor.YieldingWaitStrategy;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;

/**
 * The reference of ring_bench.c: the LMAX Disruptor as threads of one Java process, in the same topologies, with the same work:
 * 64 bytes written by the producer one message a publication, read by every consumer, who must come to the right sum.
 *
 * <p>DisruptorBench TOPOLOGY WAIT [SLOT_COUNT]; TOPOLOGY is 1to1, 1to3, pipeline, diamond or pingpong, WAIT is spin
 * (BusySpinWaitStrategy), yield (YieldingWaitStrategy) or park (BlockingWaitStrategy). A line of standard input is a number
 * of messages to run with. The threads of the run, named party-0 (producer) and so on, are then there and "ready" is printed, so
 * that they can be given cores; a second line starts the run, and one JSON object answers. No thread lives between two runs.
 */
public final class DisruptorBench {
    private static final int WORDS = 8;

    /** 64 bytes in one object: fields, as an array would be one more line away. */
    static final class Payload {
        long a, b, c, d, e, f, g, h;

        void write(final long sequence) {
            a = sequence;
            b = sequence + 1;
            c = sequence + 2;
            d = sequence + 3;
            e = sequence + 4;
            f = sequence + 5;
            g = sequence + 6;
            h = sequence + 7;
        }

        long read() {
            return a + b + c + d + e + f + g + h;
        }
    }

    static final class Summing implements EventHandler<Payload> {
        private final CountDownLatch done;
        private final long last;
        long sum;

        Summing(final CountDownLatch done, final long messages) {
            this.done = done;
            this.last = messages - 1;
        }

        private long seen = -1;

        @Override
        public void onEvent(final Payload payload, final long sequence, final boolean endOfBatch) {
            sum += payload.read();
            if (++seen == last) {
                done.countDown();
            }
        }
    }

    /** Answers each ball; the server also takes the time. */
    static final class Player implements EventHandler<Payload> {
        private final RingBuffer<Payload> out;
        private final CountDownLatch done;
        private final int messages;
        private final long[] roundTrips; // null = the other side
        private int seen;
        long sum;
        long sentNs;

        Player(final RingBuffer<Payload> out, final CountDownLatch done, final int messages, final long[] roundTrips) {
            this.out = out;
            this.done = done;
            this.messages = messages;
            this.roundTrips = roundTrips;
        }

        @Override
        public void onEvent(final Payload payload, final long sequence, final boolean endOfBatch) {
            sum += payload.read();
            final int number = seen++;
            final boolean last = seen == messages;
            if (roundTrips != null) {
                final long now = System.nanoTime();
                roundTrips[number] = now - sentNs;
                sentNs = now;
            }
            if (roundTrips == null || !last) {
                send(out, roundTrips == null ? number : number + 1);
            }
            if (last) {
                done.countDown();
            }
        }
    }

    private final String topology;
    private final String wait;
    private final int slotCount;

    private final BufferedReader input = new BufferedReader(new InputStreamReader(System.in));

    private DisruptorBench(final String topology, final String wait, final int slotCount) {
        this.topology = topology;
        this.wait = wait;
        this.slotCount = slotCount;
    }

    private WaitStrategy waitStrategy() {
        switch (wait) {
            case "spin":
                return new BusySpinWaitStrategy();
            case "yield":
                return new YieldingWaitStrategy();
            case "park":
                return new BlockingWaitStrategy();
            default:
                throw new IllegalArgumentException("wait " + wait);
        }
    }

    private RingBuffer<Payload> makeRing() {
        return RingBuffer.createSingleProducer(Payload::new, slotCount, waitStrategy());
    }

    static void send(final RingBuffer<Payload> ring, final long value) {
        final long sequence = ring.next();
        ring.get(sequence).write(value);
        ring.publish(sequence);
    }

    private static long expectedSum(final long messages) {
        return messages * (messages - 1) / 2 * WORDS + messages * (WORDS * (WORDS - 1) / 2);
    }

    private List<Thread> startAll(final List<BatchEventProcessor<Payload>> processors, final int firstParty)
            throws InterruptedException {
        final List<Thread> threads = new ArrayList<>();
        for (final BatchEventProcessor<Payload> processor : processors) {
            final Thread thread = new Thread(processor, "party-" + (firstParty + threads.size()));
            thread.setDaemon(true);
            thread.start();
            threads.add(thread);
        }
        for (final BatchEventProcessor<Payload> processor : processors) {
            while (!processor.isRunning()) {
                Thread.sleep(1);
            }
        }
        return threads;
    }

    private static void stopAll(final List<BatchEventProcessor<Payload>> processors, final List<Thread> threads)
            throws InterruptedException {
        for (final BatchEventProcessor<Payload> processor : processors) {
            processor.halt();
        }
        for (final Thread thread : threads) {
            thread.join();
        }
    }

    /** For each consumer, whom it reads behind; none = the producer. */
    private int[][] behind() {
        switch (topology) {
            case "1to1":
                return new int[][] {{}};
            case "1to3":
                return new int[][] {{}, {}, {}};
            case "pipeline":
                return new int[][] {{}, {0}, {1}};
            case "diamond":
                return new int[][] {{}, {}, {0, 1}};
            default:
                throw new IllegalArgumentException("topology " + topology);
        }
    }

    private void awaitGo() throws IOException {
        System.out.println("ready");
        System.out.flush();
        if (input.readLine() == null) {
            throw new IOException("input ended before the run");
        }
    }

    private String throughput(final int messages) throws Exception {
        final RingBuffer<Payload> ring = makeRing();
        final int[][] behind = behind();
        final CountDownLatch done = new CountDownLatch(behind.length);
        final List<Summing> handlers = new ArrayList<>();
        final List<BatchEventProcessor<Payload>> processors = new ArrayList<>();
        final boolean[] followed = new boolean[behind.length];
        for (final int[] ahead : behind) {
            final Sequence[] sequences = new Sequence[ahead.length];
            for (int i = 0; i < ahead.length; i++) {
                sequences[i] = processors.get(ahead[i]).getSequence();
                followed[ahead[i]] = true;
            }
            final SequenceBarrier barrier = ring.newBarrier(sequences);
            handlers.add(new Summing(done, messages));
            processors.add(new BatchEventProcessor<>(ring, barrier, handlers.get(handlers.size() - 1)));
        }
        for (int i = 0; i < behind.length; i++) {
            if (!followed[i]) {
                ring.addGatingSequences(processors.get(i).getSequence());
            }
        }
        final List<Thread> threads = startAll(processors, 1);
        final CountDownLatch go = new CountDownLatch(1);
        final long[] began = new long[1];
        final Thread producer = new Thread(() -> {
            try {
                go.await();
            } catch (final InterruptedException e) {
                return;
            }
            began[0] = System.nanoTime();
            for (long i = 0; i < messages; i++) {
                send(ring, i);
            }
        }, "party-0");
        producer.setDaemon(true);
        producer.start();
        awaitGo();
        go.countDown();
        done.await();
        final double seconds = (System.nanoTime() - began[0]) / 1e9;
        producer.join();
        stopAll(processors, threads);
        for (final Summing handler : handlers) {
            if (handler.sum != expectedSum(messages)) {
                throw new IllegalStateException("wrong sum");
            }
        }
        return String.format("{\"topology\": \"%s\", \"messages\": %d, \"seconds\": %.6f, \"messages_per_s\": %.0f}",
                topology, messages, seconds, messages / seconds);
    }

    private String pingpong(final int messages) throws Exception {
        final RingBuffer<Payload> there = makeRing();
        final RingBuffer<Payload> back = makeRing();
        final CountDownLatch done = new CountDownLatch(2);
        final long[] roundTrips = new long[messages];
        final Player server = new Player(there, done, messages, roundTrips);
        final Player other = new Player(back, done, messages, null);
        final BatchEventProcessor<Payload> serverProcessor = new BatchEventProcessor<>(back, back.newBarrier(), server);
        final BatchEventProcessor<Payload> otherProcessor = new BatchEventProcessor<>(there, there.newBarrier(), other);
        back.addGatingSequences(serverProcessor.getSequence());
        there.addGatingSequences(otherProcessor.getSequence());
        final List<BatchEventProcessor<Payload>> processors = List.of(serverProcessor, otherProcessor);
        final List<Thread> threads = startAll(processors, 0);
        awaitGo();
        server.sentNs = System.nanoTime();
        send(there, 0);
        done.await();
        stopAll(processors, threads);
        if (server.sum != expectedSum(messages) || other.sum != expectedSum(messages)) {
            throw new IllegalStateException("wrong sum");
        }
        Arrays.sort(roundTrips);
        return String.format("{\"topology\": \"pingpong\", \"messages\": %d, \"rtt_ns_min\": %d, \"rtt_ns_p50\": %d, "
                        + "\"rtt_ns_p90\": %d, \"rtt_ns_p99\": %d, \"rtt_ns_p999\": %d}",
                messages, roundTrips[0], roundTrips[messages / 2], roundTrips[(int) (messages * 9L / 10)],
                roundTrips[(int) (messages * 99L / 100)], roundTrips[(int) (messages * 999L / 1000)]);
    }

    public static void main(final String[] arguments) throws Exception {
        final int slotCount = arguments.length > 2 ? Integer.parseInt(arguments[2]) : 16384;
        final DisruptorBench bench = new DisruptorBench(arguments[0], arguments[1], slotCount);
        for (String line = bench.input.readLine(); line != null; line = bench.input.readLine()) {
            final int messages = Integer.parseInt(line.trim());
            System.out.println("pingpong".equals(bench.topology) ? bench.pingpong(messages) : bench.throughput(messages));
            System.out.flush();
        }
    }
}
