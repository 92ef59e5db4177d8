import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.TreeMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** Makes garbage, hot loops and threads for a while; the same lines in every run. */
public final class Work {
    private static String compute(int seed) throws Exception {
        TreeMap<String, Integer> count = new TreeMap<>();
        int state = seed;
        for (int step = 0; step < 120_000; step++) {
            state = (state * 1103515245 + 12345) & 0x7fffffff;
            count.merge("w" + state % 5000, 1, Integer::sum);
        }
        byte[] digest = MessageDigest.getInstance("SHA-256").digest(count.toString().getBytes("UTF-8"));
        return HexFormat.of().formatHex(digest).substring(0, 16);
    }

    public static void main(String[] arguments) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(3);
        for (int round = 1; round <= 24; round++) {
            List<Future<String>> parts = new ArrayList<>();
            for (int part = 0; part < 3; part++) {
                int seed = round * 10 + part;
                parts.add(pool.submit(() -> compute(seed)));
            }
            StringBuilder line = new StringBuilder("round " + round);
            for (Future<String> part : parts) {
                line.append(' ').append(part.get());
            }
            System.out.println(line);
        }
        pool.shutdown();
    }
}
