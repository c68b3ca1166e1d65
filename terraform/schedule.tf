# The hourly reconcile, and the queue for events whose retries are exhausted. Fargate keeps its own schedule.

resource "aws_scheduler_schedule_group" "relay" {
  count = local.lambda

  region = var.aws_region
  name   = var.resource_name
  tags   = var.resource_tags
}

resource "aws_scheduler_schedule" "reconcile" {
  count = local.lambda

  region              = var.aws_region
  name                = "${var.resource_name}-reconcile"
  description         = "Reconciles Kong's audit log with what was delivered"
  group_name          = aws_scheduler_schedule_group.relay[0].name
  schedule_expression = var.schedule_expression
  kms_key_arn         = var.kms_key_arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_function.relay[0].arn
    role_arn = aws_iam_role.scheduler[0].arn
    input    = jsonencode({ schedule = true })

    # Not past the next one.
    retry_policy {
      maximum_retry_attempts       = 3
      maximum_event_age_in_seconds = 3600
    }

    dead_letter_config {
      arn = aws_sqs_queue.failed[0].arn
    }
  }

  # Else the first invocation is refused.
  depends_on = [aws_iam_role_policy.scheduler]
}

# Events that could not be delivered to the function or that it failed on three times. Nothing in it has to be played
# again: the next pass finds what they announced. It is there to be looked at.
resource "aws_sqs_queue" "failed" {
  count = local.lambda

  region                    = var.aws_region
  name                      = "${var.resource_name}-failed"
  kms_master_key_id         = coalesce(var.kms_key_arn, "alias/aws/sqs")
  message_retention_seconds = 1209600
  tags                      = var.resource_tags
}

resource "aws_sqs_queue_policy" "failed" {
  count = local.lambda

  region    = var.aws_region
  queue_url = aws_sqs_queue.failed[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TLSOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "sqs:*"
      Resource  = aws_sqs_queue.failed[0].arn
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}
