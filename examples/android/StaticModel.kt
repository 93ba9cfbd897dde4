// Runs an encoder-decoder that `edgedec export --device qnn --soc CHIP` wrote, in an Android app.
// The same as static_model.h; what the ports mean is in docs/npu.md.
package edgedec.example

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import android.content.Context
import android.system.Os
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

private const val MASKED = -40f
private const val PROVIDER = "QNNExecutionProvider"

private fun direct(bytes: Int): ByteBuffer =
    ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())

/** A session, and memory for its inputs that stays where it is. */
private class Graph(private val env: OrtEnvironment, file: File, options: OrtSession.SessionOptions) :
    AutoCloseable {
    private val session = env.createSession(file.path, options)
    private val infos = session.inputInfo.mapValues { it.value.info as TensorInfo }
    val outputs: Set<String> = session.outputNames - "logits" // greedy decoding reads none
    val shapes: Map<String, LongArray> = infos.mapValues { it.value.shape }
    val sizes: Map<String, Int> = infos.mapValues { it.value.type.size }
    val inputs: Map<String, ByteBuffer> = infos.mapValues { (_, info) ->
        direct(info.shape.fold(1L, Long::times).toInt() * info.type.size)
    }
    private val tensors: Map<String, OnnxTensor> = infos.mapValues { (name, info) ->
        OnnxTensor.createTensor(env, inputs.getValue(name), info.shape, info.type)
    }

    /** Runs, and lets `read` look at the outputs. */
    fun <T> run(read: (Map<String, ByteBuffer>) -> T): T = session.run(tensors, outputs).use { result ->
        read(result.associate { (name, value) -> name to (value as OnnxTensor).byteBuffer })
    }

    override fun close() {
        tensors.values.forEach(OnnxTensor::close)
        session.close()
    }
}

/**
 * What is added to attention scores, by distance: float32 `[heads, 2 * reach]`; the value for a
 * distance (the query's position less the key's) is at `reach - 1 - distance`.
 */
private class Bias(file: File, val heads: Int) {
    private val values = FloatArray((file.length() / Float.SIZE_BYTES).toInt()).also {
        ByteBuffer.wrap(file.readBytes()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(it)
    }
    private val columns = values.size / heads

    /** The value of a head `place` columns after `distance`. */
    fun at(head: Int, distance: Int, place: Int): Float =
        maxOf(values[head * columns + columns / 2 - 1 - distance + place], MASKED)
}

/** An encoder and a decoder; one sequence at a time. `chip` is one of --soc, such as "sm8650". */
class StaticModel(context: Context, folder: File, chip: String) : AutoCloseable {
    private val env = OrtEnvironment.getEnvironment()
    private val options = npu(context)
    private val encoder = Graph(env, File(folder, "encoder.$chip.onnx"), options)
    private val decoder = Graph(env, File(folder, "decoder.$chip.onnx"), options)
    private val encoderShape = encoder.shapes.getValue("self.bias").map(Long::toInt)
    private val encoderBias = Bias(File(folder, "encoder.bias.bin"), encoderShape[1])
    private val decoderBias =
        Bias(File(folder, "decoder.bias.bin"), decoder.shapes.getValue("self.bias")[1].toInt())
    private val source = encoderShape[3]
    private val past = decoder.shapes.getValue("self.bias")[3].toInt() - 1

    /** Greedy tokens after `start`, up to `end`, at most `limit`. */
    fun generate(ids: IntArray, pad: Int, start: Int, end: Int, limit: Int): List<Int> {
        encode(ids, pad)
        val tokens = mutableListOf<Int>()
        var token = start
        for (at in 0..minOf(limit - 1, past)) { // the last position needs no slot
            token = step(token, at)
            if (token == end) break
            tokens += token
        }
        return tokens
    }

    private fun encode(ids: IntArray, pad: Int) {
        require(ids.size in 1..source) { "the input has ${ids.size} tokens, the model takes $source" }
        val tokens = encoder.inputs.getValue("input_ids").asIntBuffer()
        for (i in 0 until source) tokens.put(i, ids.getOrElse(i) { pad })
        val (_, heads, queries, _) = encoderShape
        val bias = encoder.inputs.getValue("self.bias").asFloatBuffer()
        for (head in 0 until heads) for (query in 0 until queries) for (key in 0 until source) {
            val value = if (key < ids.size) encoderBias.at(head, query, key) else MASKED
            bias.put((head * queries + query) * source + key, value)
        }
        encoder.run { outputs ->
            for ((name, values) in outputs) {
                val memory = decoder.inputs.getValue(name)
                memory.rewind()
                memory.put(values)
            }
        }
        val cross = decoder.inputs.getValue("cross.bias").asFloatBuffer()
        for (key in 0 until source) cross.put(key, if (key < ids.size) 0f else MASKED)
    }

    /** Feeds a token whose position is `at`, and keeps its keys and values. */
    private fun step(token: Int, at: Int): Int {
        decoder.inputs.getValue("input_ids").putInt(0, token)
        decoder.inputs["positions"]?.putInt(0, at)
        val bias = decoder.inputs.getValue("self.bias").asFloatBuffer()
        for (head in 0 until decoderBias.heads) {
            val row = head * (past + 1)
            for (slot in 0 until past) {
                bias.put(row + slot, if (slot < at) decoderBias.at(head, at, slot) else MASKED)
            }
            bias.put(row + past, decoderBias.at(head, 0, 0))
        }
        return decoder.run { outputs ->
            if (at < past) outputs.filterKeys { it.startsWith("new.") }.forEach { keep(it.key, it.value, at) }
            outputs.getValue("next_token").getInt(0)
        }
    }

    /**
     * Writes a row `[1, 1, heads * depth]` into slot `at` of its cache: keys are stored as
     * `[1, heads, depth, slots]`, values as `[1, heads, slots, depth]`.
     */
    private fun keep(name: String, row: ByteBuffer, at: Int) {
        val cache = "past." + name.removePrefix("new.")
        val keys = name.endsWith(".key")
        val shape = decoder.shapes.getValue(cache).map(Long::toInt)
        val size = decoder.sizes.getValue(cache)
        val memory = decoder.inputs.getValue(cache)
        val depth = if (keys) shape[2] else shape[3]
        for (head in 0 until shape[1]) for (i in 0 until depth) {
            val slot = if (keys) (head * depth + i) * past + at else (head * past + at) * depth + i
            for (byte in 0 until size) {
                memory.put(slot * size + byte, row.get((head * depth + i) * size + byte))
            }
        }
    }

    override fun close() {
        decoder.close()
        encoder.close()
        options.close()
    }

    private fun npu(context: Context): OrtSession.SessionOptions {
        // The NPU loads its own half of QNN from files of this folder; one folder, not a list.
        Os.setenv("ADSP_LIBRARY_PATH", context.applicationInfo.nativeLibraryDir, true)
        if (env.epDevices.none { it.epName == PROVIDER }) {
            env.registerExecutionProviderLibrary(PROVIDER, "libonnxruntime_providers_qnn.so")
        }
        val devices = env.epDevices.filter { it.epName == PROVIDER }
        check(devices.isNotEmpty()) { "QNN finds no NPU here" }
        return OrtSession.SessionOptions().apply {
            addConfigEntry("session.disable_cpu_ep_fallback", "1")
            addExecutionProvider(
                devices,
                mapOf("backend_type" to "htp", "htp_performance_mode" to "burst"),
            )
        }
    }
}
